"""Checkpoints as training scripts leave them, and those that must be refused."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from samdeploy.errors import InputError, WeightsError
from samdeploy.importing.source import read_source
from samdeploy.models import build_model
from samdeploy.models.preprocessing import Given
from samdeploy.models.weights import load_state
from tests.importing.imported import ARCH, CLASSES, saved, state_of

State = dict[str, torch.Tensor]


def with_prefix(state: State, prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


def read(path: Path, arch: str | None = ARCH):  # type: ignore[no-untyped-def]
    return read_source(str(path), arch, {}, Given())


@pytest.fixture(scope="module")
def state() -> State:
    return state_of()


def zeros(state: State) -> State:
    return {key: torch.zeros_like(value) for key, value in state.items()}


def averaged_model(state: State) -> State:
    """As torch.optim.swa_utils.AveragedModel saves itself."""
    return {"n_averaged": torch.tensor(9), **with_prefix(state, "module.")}


OTHERS = "other weights in the file, not taken:"
LEFT = "that the network does not have"
FORMS: dict[str, tuple[Callable[[State], object], list[str]]] = {
    "plain": (lambda state: state, []),
    "state_dict": (lambda state: {"epoch": 3, "state_dict": state}, []),
    "model": (lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": []}}, []),
    "model_state_dict": (lambda state: {"model_state_dict": state}, []),
    "DataParallel": (lambda state: with_prefix(state, "module."), ["prefix 'module.' removed"]),
    "compiled": (lambda state: with_prefix(state, "_orig_mod.module."), ["prefix '_orig_mod.module.' removed"]),
    "a part in DataParallel": (
        lambda state: {key.replace("layer1.", "layer1.module."): value for key, value in state.items()},
        ["names of wrappers removed"],
    ),
    "Lightning": (
        lambda state: {
            "pytorch-lightning_version": "2.5.0",
            "state_dict": {**with_prefix(state, "net."), "criterion.weight": torch.ones(3)},
            "hyper_parameters": {"lr": 0.1},
        },
        ["prefix 'net.' removed", f"left 1 {LEFT}: criterion.weight"],
    ),
    "Lightning with averages": (
        lambda state: {"state_dict": {**with_prefix(zeros(state), "model."), **with_prefix(state, "ema_model.")}},
        ["prefix 'ema_model.' removed", f"left 92 {LEFT}: model.conv1.0.weight, "],
    ),
    "timm": (
        lambda state: {"arch": "test_resnet", "state_dict": zeros(state), "state_dict_ema": state},
        ["averaged weights taken ('state_dict_ema')", f"{OTHERS} 'state_dict'"],
    ),
    "torchvision": (
        lambda state: {"model": zeros(state), "model_ema": averaged_model(state)},
        [
            "averaged weights taken ('model_ema')",
            f"{OTHERS} 'model'",
            "names of wrappers removed",
            f"left 1 {LEFT}: n_averaged",
        ],
    ),
    "averages by another name": (
        lambda state: {"model": zeros(state), "ema_model": {"module": averaged_model(state), "decay": 0.9}},
        [
            "averaged weights taken ('ema_model.module')",
            f"{OTHERS} 'model'",
            "names of wrappers removed",
            f"left 1 {LEFT}: n_averaged",
        ],
    ),
    "averages of a callback": (
        lambda state: {"state_dict": zeros(state), "callbacks": {"EMA": {"weights": state}}, "ema": {"decay": 0.9}},
        ["averaged weights taken ('callbacks.EMA.weights')", f"{OTHERS} 'state_dict'"],
    ),
    "a teacher and unnamed averages": (
        lambda state: {"model": state, "teacher": zeros(state), "ema": {"shadow_params": list(state.values())}},
        [f"{OTHERS} 'teacher', 'ema.shadow_params'"],
    ),
    "optimizer": (
        lambda state: {
            "model": state,
            "optimizer": {"state": {0: {"exp_avg": state["fc.weight"]}}},
            "ema": [],
            "net": torch.ones(2),
        },
        [],
    ),
    "arguments of timm": (
        lambda state: {"state_dict": state, "args": argparse.Namespace(img_size=128, mean=None, crop_pct=0.9)},
        [],
    ),
    "arguments that no bundle expresses": (
        lambda state: {"state_dict": state, "args": argparse.Namespace(interpolation="lanczos", crop_pct=0.9)},
        ["its training prepared images with interpolation lanczos, which is not taken: check --size, --resize, "],
    ),
    "profiler": (lambda state: {**state, "layer1.total_ops": torch.zeros(1)}, [f"left 1 {LEFT}: layer1.total_ops"]),
    "no counters": (lambda state: {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, []),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str, state: State, tmp_path: Path) -> None:
    make, notes = FORMS[form]
    found = read(saved(tmp_path / "w.pth", make(state)))
    assert found.notes[0] == f"loaded {len(found.state)} tensors" and len(found.notes) == len(notes) + 1
    assert all(one.startswith(other) for one, other in zip(found.notes[1:], notes, strict=True)), found.notes
    assert set(state) - set(found.state) in ({key for key in state if key.endswith("num_batches_tracked")}, set())
    assert all(torch.equal(found.state[key], state[key]) for key in found.state)
    assert found.num_classes == len(CLASSES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype, state: State, tmp_path: Path) -> None:
    half = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    safetensors.torch.save_file(with_prefix(half, "model."), tmp_path / "w.safetensors")
    found = read(tmp_path / "w.safetensors")
    assert found.notes[1:] == ("prefix 'model.' removed", f"{str(dtype).removeprefix('torch.')} converted to float32")


def test_two_networks_in_one_file(state: State, tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", {**with_prefix(state, "student."), **with_prefix(state, "teacher.")})
    with pytest.raises(WeightsError, match=r"w.pth: holds several networks, below 'student.' and 'teacher.'; save"):
        read(path)


@pytest.mark.parametrize(
    ("one", "two"), [("", "module."), ("student.", "teacher."), ("rgb_net.", "semantic_net."), ("ema.", "model_ema.")]
)
def test_one_of_two_networks_is_not_taken_silently(one: str, two: str, state: State, tmp_path: Path) -> None:
    first = {key: value for key, value in state.items() if key != "fc.bias" or not one}
    path = saved(tmp_path / "w.pth", {**with_prefix(first, one), **with_prefix(zeros(state), two)})
    with pytest.raises(WeightsError, match=r"w.pth: holds several networks, .*; save the state dict of one of them"):
        read(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"classes": list(CLASSES)},
        {"class_names": CLASSES},
        {"class_to_idx": {"eel": 2, "cat": 0, "dog": 1}},
        {"hyper_parameters": {"class_names": list(CLASSES)}},
        {"meta": {"CLASSES": CLASSES}},
        {"args": argparse.Namespace(classes=list(CLASSES))},
    ],
    ids=str,
)
def test_class_names_in_the_file(entry: dict[str, object], state: State, tmp_path: Path) -> None:
    assert read(saved(tmp_path / "w.pth", {"state_dict": state, **entry})).classes == CLASSES


def test_entries_that_are_no_class_names(state: State, tmp_path: Path) -> None:
    for entry in (
        {"classes": 3},
        {"classes": []},
        {"class_to_idx": {"cat": [0]}},
        {"class_to_idx": {"cat": 1, "dog": 2}},
        {"meta": ["cat"]},
    ):
        assert read(saved(tmp_path / "w.pth", {"state_dict": state, **entry})).classes is None


def test_a_checkpoint_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, object] = {"epoch": 3}
    content["model"] = content
    with pytest.raises(WeightsError, match=r"w.pth: holds no weights \(a dict found\); expected a state dict"):
        read(saved(tmp_path / "w.pth", content))


def test_a_tensor_that_repeats_one_number(state: State, tmp_path: Path) -> None:
    head = {"fc.weight": torch.zeros(1).expand(10**12, 96), "fc.bias": torch.zeros(1).expand(10**12)}
    with pytest.raises(WeightsError, match=r"w.pth: fc.weight of \[1000000000000, 96\] is larger than the file"):
        read(saved(tmp_path / "w.pth", {**state, **head}))


def test_a_file_whose_name_is_no_text(state: State, tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", state).rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.pth"))
    with pytest.raises(InputError, match=r"its name is no UTF-8, and could not be written into a record; rename it"):
        read(path)


def test_the_file_knows_its_architecture(state: State, tmp_path: Path) -> None:
    args = argparse.Namespace(model="test_resnet", lr=0.1)
    path = saved(tmp_path / "w.pth", {"arch": "resnet", "args": args, "state_dict": state})
    with pytest.raises(
        InputError, match=r"architecture not given\. The file says test_resnet: --arch timm:test_resnet"
    ):
        read(path, None)
    with pytest.raises(InputError, match=r"of test_resnet, as the file itself says, .*: --arch timm:test_resnet"):
        read(path, "timm:resnet18")
    assert read(path).state


def test_an_architecture_is_guessed(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", with_prefix(state_of("torchvision:resnet18"), "module."))
    with pytest.raises(
        InputError, match=r"Its tensors look like resnet18: --arch timm:resnet18 or --arch torchvision:resnet18$"
    ):
        read(path, None)
    with pytest.raises(InputError, match=r"Name it: --arch timm:NAME$"):
        read(saved(tmp_path / "w.pth", {"a": torch.ones(3)}), None)


class Hostile:
    """Unpickling this makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.target),)


def test_code_beside_the_weights_is_never_run(state: State, tmp_path: Path) -> None:
    made = tmp_path / "made"
    path = saved(tmp_path / "w.pth", {"state_dict": state, "args": argparse.Namespace(model=Hostile(made))})
    with pytest.raises(
        WeightsError, match=r"w.pth: holds posix.mkdir: code, which is never run; expected a state dict"
    ):
        read(path)
    assert not made.exists()
    torch.load(path, weights_only=False)
    assert made.exists()  # the file was dangerous indeed


def test_whole_modules_are_refused_with_the_cure(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", build_model(ARCH, 3))
    with pytest.raises(
        WeightsError, match=r"holds timm.*and \d+ more: code, .*torch.save\(model.state_dict\(\), path\)"
    ):
        read(path)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_is_refused_with_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), path)
    with pytest.raises(WeightsError, match=r"is a TorchScript archive.*torch.jit.load\('.*w.pt'\).state_dict\(\)"):
        read(path)


def test_tensors_of_a_larger_network_are_refused(state: State, tmp_path: Path) -> None:
    found = read(saved(tmp_path / "w.pth", {**state, "layer4.1.conv1.weight": torch.ones(2, 2)}))
    with pytest.raises(WeightsError, match=r"1 unexpected: layer4.1.conv1.weight"):
        load_state(build_model(ARCH, 3), found.state, found.origin)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda value: value.to(torch.int8), "int8"),
        (lambda value: value > 0, "bool"),
        (lambda value: value.to(torch.complex64), "complex64"),
        (lambda value: value.to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (lambda value: value.to_sparse(), "sparse_coo"),
        (lambda value: value.to("meta"), "without numbers"),
    ],
)
def test_only_dense_floats_are_weights(
    change: Callable[[torch.Tensor], torch.Tensor], found: str, state: State, tmp_path: Path
) -> None:
    path = saved(tmp_path / "w.pth", {**state, "fc.weight": change(state["fc.weight"])})
    with pytest.raises(WeightsError, match=rf"w.pth: fc.weight is {found}; dense float16, bfloat16, .* expected"):
        load_state(build_model(ARCH, 3), read(path).state, str(path))
