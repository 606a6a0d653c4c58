"""Faults planted in a bundle's weights, which the comparison with PyTorch must find."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from samdeploy.bundle import Bundle
from samdeploy.bundle.names import MANIFEST
from samdeploy.evaluate import EvalOptions, evaluate_bundle

pytestmark = pytest.mark.usefixtures("short_latency")

Seal = Callable[[Path], Bundle]
CPU_ENGINES = ("onnxruntime", "openvino")


def edit_graph(root: Path, change: Callable[[dict[str, onnx.TensorProto]], None]) -> None:
    """Change weights of the FP32 graph in place."""
    path = root / "model.fp32.onnx"
    model = onnx.load(str(path))
    change({weight.name: weight for weight in model.graph.initializer})
    path.write_bytes(model.SerializeToString())


def rewrite(weight: onnx.TensorProto, array: np.ndarray) -> None:
    weight.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array), weight.name))


def swap_classes(weights: dict[str, onnx.TensorProto]) -> None:
    for name in ("head.weight", "head.bias"):
        array = onnx.numpy_helper.to_array(weights[name]).copy()
        array[[3, 8]] = array[[8, 3]]
        rewrite(weights[name], array)


def bgr(weights: dict[str, onnx.TensorProto]) -> None:
    """The network for images whose channels come as blue, green, red."""
    for name in ("pixels.scale", "pixels.shift"):
        rewrite(weights[name], onnx.numpy_helper.to_array(weights[name])[:, ::-1])
    rewrite(weights["stem.weight"], onnx.numpy_helper.to_array(weights["stem.weight"])[:, ::-1])


def wrong_normalisation(weights: dict[str, onnx.TensorProto]) -> None:
    """A mean and a standard deviation of one half, as many exporters assume."""
    rewrite(weights["pixels.scale"], np.full((1, 3, 1, 1), 2 / 255, np.float32))
    rewrite(weights["pixels.shift"], np.full((1, 3, 1, 1), -1, np.float32))


def noise(weights: dict[str, onnx.TensorProto]) -> None:
    """A thousandth of the head's weights: top-1 hardly notices, the logits do."""
    array = onnx.numpy_helper.to_array(weights["head.weight"])
    rewrite(weights["head.weight"], array * np.float32(1.001))


def not_a_number(weights: dict[str, onnx.TensorProto]) -> None:
    array = onnx.numpy_helper.to_array(weights["head.bias"]).copy()
    array[9] = np.nan
    rewrite(weights["head.bias"], array)


@pytest.mark.parametrize("fault", [swap_classes, wrong_normalisation, noise, not_a_number])
def test_a_planted_fault_is_found(copy_of_bundle: Path, seal: Seal, fault: Callable[..., None]) -> None:
    edit_graph(copy_of_bundle, fault)
    report = evaluate_bundle(seal(copy_of_bundle), EvalOptions(device="cpu"))
    assert not report.passed
    rows = {row.backend: row for row in report.results}
    for backend in CPU_ENGINES:
        row = rows[backend]
        assert (row.ran, row.passed) == (True, False), backend
        assert row.comparison is not None
        assert "logits are not finite" in row.reason if fault is not_a_number else "a logit differs by" in row.reason
        if fault is swap_classes:
            assert row.comparison.top1 < row.comparison.reference_top1 - 10
            assert "agreement" in row.reason
        if fault is noise:
            assert row.comparison.top1_agreement == 100.0
            assert "agreement" not in row.reason


def test_channels_in_another_order_are_found(copy_of_bundle: Path, seal: Seal, tmp_path: Path) -> None:
    """On grey digits blue equals red, so the test images are coloured ones of a folder."""
    from PIL import Image

    edit_graph(copy_of_bundle, bgr)
    examples = tmp_path / "coloured"
    random = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 2), ("test", 4)):
        for label in "0123456789":
            folder = examples / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    manifest = json.loads((copy_of_bundle / MANIFEST).read_text())
    manifest["data"]["name"] = "folder"
    (copy_of_bundle / MANIFEST).write_text(json.dumps(manifest))

    report = evaluate_bundle(seal(copy_of_bundle), EvalOptions(device="cpu", data_root=examples))
    assert report.n_images == 40
    assert report.test_set == "differs from the one at training"
    assert not report.passed
    assert [row.passed for row in report.results[:2]] == [False, False]
    # The same images through the honest graph pass: it was the order, and not the images.
    edit_graph(copy_of_bundle, bgr)
    assert evaluate_bundle(seal(copy_of_bundle), EvalOptions(device="cpu", data_root=examples)).passed
