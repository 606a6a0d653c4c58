"""Weight files: our own, the original code's, torchvision's, and those that must be refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from samdeploy.errors import WeightsError
from samdeploy.models import build_model, load_weights, save_weights, state_dict_from_bytes
from samdeploy.models.sam_resnet.resnet import SamResNet


def model(seed: int = 0, classes: int = 3, arch: str = "sam-resnet18") -> SamResNet:
    torch.manual_seed(seed)
    net = build_model(arch, classes, {"gate": "original"})
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            module.running_mean.normal_()
    return net


def same(one: nn.Module, other: nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return list(left) == list(right) and all(torch.equal(left[key], right[key]) for key in left)


def test_round_trip(tmp_path: Path) -> None:
    saved, loaded = model(0), model(1)
    assert not same(saved, loaded)
    save_weights(saved, tmp_path / "weights.safetensors")
    load_weights(loaded, tmp_path / "weights.safetensors")
    assert same(saved, loaded)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]
    from_bytes = state_dict_from_bytes((tmp_path / "weights.safetensors").read_bytes())
    assert torch.equal(from_bytes["layer4.1.sl.fc.weight"], saved.state_dict()["layer4.1.sl.fc.weight"])


def test_channels_last_weights_are_saved_in_plain_order(tmp_path: Path) -> None:
    saved, loaded = model(0), model(1)
    save_weights(saved.to(memory_format=torch.channels_last), tmp_path / "weights.safetensors")
    load_weights(loaded, tmp_path / "weights.safetensors")
    assert same(saved, loaded)


@pytest.mark.parametrize("form", ["plain", "checkpoint", "data parallel", "legacy file"])
def test_files_of_the_original_code(tmp_path: Path, form: str) -> None:
    arch = "sam-resnet50" if form == "plain" else "sam-resnet18"
    saved, loaded = model(0, arch=arch), model(1, arch=arch)
    state = dict(saved.state_dict())
    head = {"fc.0.weight", "fc.2.bias", "fc.4.weight"} if form == "plain" else {"fc.weight", "fc.bias"}
    assert {"layer1.0.sl.fc.weight", "layer4.1.bn2.running_var", *head} <= set(state)
    path = tmp_path / "original.pth"
    if form == "data parallel":
        state = {f"module.{key}": value for key, value in state.items()}
    if form == "legacy file":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        torch.save({"epoch": 3, "state_dict": state} if form == "checkpoint" else state, path)
    load_weights(loaded, path)
    assert same(saved, loaded)


def test_all_differences_stand_in_one_error(tmp_path: Path) -> None:
    state = dict(model(0, classes=5).state_dict())
    del state["layer2.0.conv1.weight"], state["bn1.bias"]
    state["fc2.weight"] = torch.zeros(2)
    path = tmp_path / "other.pth"
    torch.save(state, path)
    net = model(1)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_weights(net, path)
    text = str(caught.value)
    assert text.startswith(f"{path}: does not fit the architecture")
    assert "2 missing: bn1.bias, layer2.0.conv1.weight" in text
    assert "1 unexpected: fc2.weight" in text
    assert "2 of another shape: fc.weight [5, 512] (expected [3, 512]), fc.bias [5] (expected [3])" in text
    assert all(torch.equal(net.state_dict()[key], value) for key, value in before.items())


def test_a_counter_that_old_files_lack_is_not_missed(tmp_path: Path) -> None:
    state = {key: value for key, value in model(0).state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pth")
    load_weights(model(1), tmp_path / "old.pth")


class Hostile:
    """Unpickling this makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("form", ["plain pickle", "torch.save", "inside a state dict"])
def test_no_code_in_a_file_runs(tmp_path: Path, form: str) -> None:
    made, path = tmp_path / "made-by-the-file", tmp_path / "hostile.pth"
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(Hostile(made), protocol=2))
    else:
        torch.save(Hostile(made) if form == "torch.save" else {**model().state_dict(), "x": Hostile(made)}, path)
    with pytest.raises(WeightsError, match=r"hostile\.pth: .*code, which is never run; expected a state dict"):
        load_weights(model(), path)
    assert not made.exists()
    torch.load(path, weights_only=False) if form != "plain pickle" else pickle.loads(path.read_bytes())
    assert made.exists()  # the file was dangerous indeed


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(model(), tmp_path / "module.pth")
    with pytest.raises(WeightsError, match=r"save it with torch\.save\(model\.state_dict\(\), path\)"):
        load_weights(model(), tmp_path / "module.pth")


@pytest.mark.parametrize("name", ["weights.pth", "pytorch_model.bin", "weights.SAFETENSORS", "weights.safetensors"])
@pytest.mark.parametrize("form", ["safetensors", "pickle", "legacy pickle"])
def test_a_file_is_read_by_its_content_whatever_its_name(tmp_path: Path, name: str, form: str) -> None:
    saved, loaded = nn.Linear(3, 2), nn.Linear(3, 2)
    if form == "safetensors":
        save_weights(saved, tmp_path / name)
    else:
        torch.save(saved.state_dict(), tmp_path / name, _use_new_zipfile_serialization=form == "pickle")
    load_weights(loaded, tmp_path / name)
    assert same(saved, loaded)


def test_something_else_than_a_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match=r"list\.pth: holds no weights \(a list found\); expected a state dict"):
        load_weights(model(), tmp_path / "list.pth")


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "legacy.pth"])
def test_truncated_files(tmp_path: Path, name: str) -> None:
    whole, cut = tmp_path / "whole", tmp_path / name
    net = nn.Linear(64, 64)
    if name.endswith(".pth"):
        torch.save(net.state_dict(), whole, _use_new_zipfile_serialization=not name.startswith("legacy"))
    else:
        save_weights(net, whole)
    content = whole.read_bytes()
    for length in (0, 1, 7, 8, 9, 50, 200, 500, 1000, len(content) // 2, len(content) - 100, len(content) - 1):
        cut.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=f"{name}: .*(damaged|truncated)"):
            load_weights(net, cut)
    if name.endswith(".safetensors"):
        with pytest.raises(WeightsError, match="weights: truncated, or not a safetensors file"):
            state_dict_from_bytes(content[:-1])


def test_bytes_that_are_no_weights(tmp_path: Path) -> None:
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("these are no weights, but a text that is long enough to look like a file\n" * 9)
        with pytest.raises(WeightsError, match=name):
            load_weights(model(), tmp_path / name)


def test_missing_files(tmp_path: Path) -> None:
    for name in ("no.safetensors", "no.pth"):
        with pytest.raises(WeightsError, match=rf"{name}: no such file; expected weights as \.safetensors or \.pth"):
            load_weights(model(), tmp_path / name)
    with pytest.raises(WeightsError, match="no such file"):
        load_weights(model(), tmp_path)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(build_model("sam-resnet18", 10), path)
    load_weights(build_model("sam-resnet18", 10), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="the tensors are not those that were saved"):
        load_weights(build_model("sam-resnet18", 10), path)


def test_other_architecture_is_named(tmp_path: Path) -> None:
    save_weights(model(0), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError) as caught:
        load_weights(model(arch="sam-resnet50"), tmp_path / "w.safetensors")
    text = str(caught.value)
    assert "w.safetensors: does not fit sam-resnet50; this looks like sam-resnet18 (" in text
    assert len(text) < 600 + len(str(tmp_path))


def test_a_network_that_asks_for_its_layouts_version(tmp_path: Path) -> None:
    model = build_model("torchvision:mnasnet0_5", 3)
    save_weights(model, tmp_path / "weights.safetensors")
    load_weights(build_model("torchvision:mnasnet0_5", 3), tmp_path / "weights.safetensors")
