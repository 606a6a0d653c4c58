"""Bundles whose files all have their hash and yet are not of one network: `eval` and `doctor` must name the file."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from samdeploy.bundle import Bundle, open_bundle
from samdeploy.bundle.names import MANIFEST
from samdeploy.doctor import examine_bundle
from samdeploy.errors import Contradiction
from samdeploy.evaluate import EvalOptions, evaluate_bundle
from samdeploy.evaluate.contradictions import find_contradictions

Seal = Callable[[Path], Bundle]
Values = dict[str, Any]


def scale(path: Path, name: str, factor: float) -> None:
    """Multiply one weight of a graph."""
    model = onnx.load(path)
    (weight,) = [found for found in model.graph.initializer if found.name == name]
    array = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array((factor * array).astype(array.dtype), name))
    onnx.save(model, path)


def edit(root: Path, change: Callable[[Values], Any]) -> None:
    values = json.loads((root / MANIFEST).read_text())
    change(values)
    (root / MANIFEST).write_text(json.dumps(values))


def of_role(values: Values, role: str) -> Values:
    found: Values = next(file for file in values["files"] if file["role"] == role)
    return found


def other_weights(root: Path) -> None:
    from samdeploy.models import build_model, save_weights

    save_weights(build_model("sam-resnet18", 10, {"gate": "original"}), root / "weights.safetensors")


def other_golden(root: Path) -> None:
    logits = np.load(root / "golden" / "logits.npy")
    np.save(root / "golden" / "logits.npy", np.roll(logits, 1, axis=0))


def second_graph(root: Path) -> None:
    (root / "second.onnx").write_bytes((root / "model.fp32.onnx").read_bytes())
    edit(root, lambda values: values["files"].append({**of_role(values, "graph"), "path": "second.onnx"}))


def planned(**built_for: str) -> Callable[[Path], None]:
    """A plan in the manifest: whether one can be built depends on the machine."""

    def change(root: Path) -> None:
        (root / "a.plan").write_bytes(b"a plan")
        plan = {
            "role": "engine",
            "path": "a.plan",
            "backend": "tensorrt",
            "precision": "int8",
            "sha256": "",
            "bytes": 0,
        }
        edit(root, lambda values: values["files"].append({**plan, "precision": "int8", "built_for": built_for}))

    return change


def plan_of_fp32(root: Path) -> None:
    planned(graph=of_role(json.loads((root / MANIFEST).read_text()), "graph")["sha256"])(root)


# name -> what is done to a bundle before its hashes are made right, and how the fault that is reported begins.
SABOTAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "maps of another network": (
        lambda root: scale(root / "model.cam.fp32.onnx", "layer2.0.conv2.weight", -1),
        "model.cam.fp32.onnx: its answers are not those of the trained network on the golden images (off by ",
    ),
    "FP16 graph of another network": (
        lambda root: scale(root / "model.fp16.onnx", "layer3.0.conv1.weight", -1),
        "model.fp16.onnx: its answers are not those of the trained network",
    ),
    "FP32 graph with a scaled head": (
        lambda root: scale(root / "model.fp32.onnx", "head.weight", 1.01),
        "model.fp32.onnx: its answers are not those of the trained network",
    ),
    "no graph at all": (
        lambda root: (root / "model.fp16.onnx").write_bytes(b"no graph") and None,
        "model.fp16.onnx: onnxruntime cannot run it (",
    ),
    "weights of another epoch": (other_weights, "weights.safetensors: is not the file of epoch "),
    "weights of another network": (other_weights, "weights.safetensors: its answers are not those of the trained "),
    "golden answers of another network": (other_golden, "golden/logits.npy: is not what weights.safetensors answers;"),
    "two graphs for FP32": (second_graph, "second.onnx: a second file for fp32 graph, beside model.fp32.onnx;"),
    "plan of another bundle": (planned(graph="ab" * 32), "a.plan: was built from a graph that is not in this bundle;"),
    "plan of no graph": (planned(), "a.plan: was built from a graph that is not in this bundle;"),
    "plan of a graph in another precision": (
        plan_of_fp32, "a.plan: is int8, and was built from model.fp32.onnx, which is fp32;",
    ),
    "classes exchanged": (
        lambda root: edit(root, lambda values: values["model"]["classes"].reverse()),
        "manifest.json: its architecture, classes or preprocessing are not those that were trained;",
    ),
    "a class twice": (
        lambda root: edit(root, lambda values: values["model"]["classes"].__setitem__(3, "5")),
        "manifest.json: the class '5' is named more than once;",
    ),
    "another mean": (
        lambda root: edit(root, lambda values: values["preprocessing"].update(mean=[0.5, 0.5, 0.5])),
        "manifest.json: its architecture, classes or preprocessing are not those that were trained;",
    ),
    "no hash of a training image": (
        lambda root: np.save(root / "hashes" / "train.npy", np.empty((0, 2), np.uint64)),
        "hashes/train.npy: holds 0 hashes of 719 train images;",
    ),
    "no hashes of training images": (
        lambda root: edit(root, lambda values: values["files"].remove(of_role(values, "train_hashes"))),
        "manifest.json: names no train_hashes, the hashes of its 719 train images;",
    ),
    "another count": (
        lambda root: edit(root, lambda values: values["data"]["counts"].update(test=360)),
        "manifest.json: data.counts names 360 test images, training measured 359;",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SABOTAGE)
def test_contradiction_is_named(name: str, copy_of_bundle: Path, seal: Seal) -> None:
    sabotage, text = SABOTAGE[name]
    sabotage(copy_of_bundle)
    found = find_contradictions(seal(copy_of_bundle))
    assert any(fault.startswith(text) for fault in found), found
    assert all(fault.endswith("samdeploy export RUN") for fault in found)


def test_honest_bundles_do_not_contradict_themselves(digits_bundle: Bundle, cam_bundle: Bundle) -> None:
    assert find_contradictions(digits_bundle) == find_contradictions(cam_bundle) == ()


def test_limit_on_file_sizes_is_no_contradiction(digits_bundle: Bundle) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        assert find_contradictions(digits_bundle) == ()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_maps_beside_right_logits(cam_bundle: Bundle, tmp_path: Path, seal: Seal) -> None:
    """Mirrored maps have the same mean, so that the logits stay right."""
    for file in cam_bundle.files:
        (tmp_path / file.path).parent.mkdir(exist_ok=True)
        (tmp_path / file.path).write_bytes(cam_bundle.read(file))
    (tmp_path / MANIFEST).write_bytes((cam_bundle.root / MANIFEST).read_bytes())
    path = tmp_path / "model.cam.fp32.onnx"
    model = onnx.load(path)
    maps = next(node for node in model.graph.node if "cam" in node.output)
    maps.output[0] = "straight"
    for node in model.graph.node:
        node.input[:] = ["straight" if name == "cam" else name for name in node.input]
    for name, value in (("from", -1), ("to", -(2**31)), ("axis", 2), ("step", -1)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), name))
    model.graph.node.append(onnx.helper.make_node("Slice", ["straight", "from", "to", "axis", "step"], ["cam"]))
    onnx.save(model, path)
    (fault,) = find_contradictions(seal(tmp_path))
    assert fault.startswith("model.cam.fp32.onnx: its maps are not those of the trained network on the golden images")


@pytest.mark.usefixtures("short_latency")
def test_eval_and_doctor_fail(copy_of_bundle: Path, seal: Seal) -> None:
    SABOTAGE["maps of another network"][0](copy_of_bundle)
    report = evaluate_bundle(seal(copy_of_bundle), EvalOptions("onnxruntime", "fp32", "cpu", consistency_s=0))
    assert report.results[0].passed and not report.passed  # the engine itself is right
    assert report.faults[0].startswith("model.cam.fp32.onnx: ")
    assert examine_bundle(copy_of_bundle).problems == report.faults


def test_evaluation_that_cannot_begin_names_the_contradiction(copy_of_bundle: Path) -> None:
    edit(copy_of_bundle, lambda values: values["model"]["classes"].reverse())
    with pytest.raises(Contradiction, match="classes or preprocessing are not those that were trained") as error:
        evaluate_bundle(open_bundle(copy_of_bundle), EvalOptions("onnxruntime"))
    assert error.value.exit_code == 1


def test_doctor_without_pytorch_compares_graphs(
    copy_of_bundle: Path, seal: Seal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "samdeploy.evaluate.contradictions.availability", lambda name: "not here" if name == "pytorch" else None
    )
    SABOTAGE["maps of another network"][0](copy_of_bundle)
    (fault,) = find_contradictions(seal(copy_of_bundle))
    assert fault.startswith("model.cam.fp32.onnx: ")
