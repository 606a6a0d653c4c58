"""The trained network as a graph of its own: all its tensors, and what INT8 makes of them."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest

from samdeploy.backends import open_session
from samdeploy.backends.int8 import Grid, Quantization, int8_reference, read_quantization, round_as
from samdeploy.backends.reference import Step, graph_tensors, reference_tensors, run_exactly
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable
from samdeploy.export.int8.qdq import calibrate, quantize
from samdeploy.graphs.inference import Options, run_graph
from tests.backends.conftest import AddFile


def fp32_graph(bundle: Bundle) -> bytes:
    file = bundle.find("graph", precision="fp32")
    assert file is not None
    return bundle.read(file)


def test_logits_are_the_trained_networks_whatever_the_graph_says(digits_bundle: Bundle, with_file: AddFile) -> None:
    model = onnx.load_from_string(fp32_graph(digits_bundle))
    for weight in model.graph.initializer:
        weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), weight.name))
    images = digits_bundle.golden()[0]
    with open_session(digits_bundle, "pytorch", device="cpu") as session:
        expected = session.run(images)
    changed = with_file("graph", model.SerializeToString(), precision="fp32")
    found = reference_tensors(changed, images).values["logits"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.ptp(expected))


def test_steps_are_read_from_the_graph(digits_bundle: Bundle) -> None:
    found = reference_tensors(digits_bundle, digits_bundle.golden()[0][:1])
    assert found.normalisation == ("pixels", "pixels.nchw", "pixels.scaled", "pixels.shifted")
    assert found.steps["layer1.0.conv1"] == Step("Conv", ("maxpool",), has_weights=True)
    assert found.steps["layer1.0.gated"] == Step("Mul", ("layer1.0.conv2", "layer1.0.unsqueeze"), has_weights=False)
    assert found.steps["logits"] == Step("Gemm", ("flatten",), has_weights=True)
    assert {step.operator for step in found.steps.values() if step.has_weights} == {"Conv", "Gemm", "Mul", "Add"}
    assert list(found.values) == list(found.steps)
    assert found.values["layer4.0.relu"].shape == (1, 512, 1, 1)


def small_graph() -> onnx.ModelProto:
    """A convolution of one pixel that adds its channels up in two ways, a Clip, and a product of matrices."""
    weights = {"mix.weight": np.array([[3, 1, 0], [0.5, -0.26, 0.1]], np.float32).reshape(2, 3, 1, 1)}
    weights["head.weight"] = np.array([[1, -2], [0.3, 4]], np.float32)
    weights["low"], weights["high"] = np.array(0, np.float32), np.array(6, np.float32)
    nodes = [
        onnx.helper.make_node("Cast", ["image"], ["float"], name="float", to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Transpose", ["float"], ["planes"], name="planes", perm=[0, 3, 1, 2]),
        onnx.helper.make_node("Conv", ["planes", "mix.weight"], ["mix"], name="mix"),
        onnx.helper.make_node("Clip", ["mix", "low", "high"], ["clip"], name="clip"),
        onnx.helper.make_node("GlobalAveragePool", ["clip"], ["mean"], name="mean"),
        onnx.helper.make_node("Flatten", ["mean"], ["flat"], name="flat"),
        onnx.helper.make_node("MatMul", ["flat", "head.weight"], ["logits"], name="logits"),
    ]
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["N", 1, 1, 3])
    logits = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 2])
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    made = onnx.helper.make_graph(nodes, "small", [image], [logits], constants)
    return onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def test_any_graph_has_tensors_and_bounds_are_no_weights() -> None:
    images = np.array([[[[1, 2, 3]]]], np.uint8)
    found = graph_tensors(small_graph(), images)
    assert found.normalisation == ("float", "planes")
    assert [name for name, step in found.steps.items() if step.has_weights] == ["mix", "logits"]
    np.testing.assert_allclose(found.values["mix"].ravel(), [5, 0.28], rtol=1e-6)
    np.testing.assert_allclose(found.values["logits"], [[5.084, -8.88]], rtol=1e-6)


def test_rounding_is_that_of_integers() -> None:
    """Weights: per output channel, 127 steps to the largest.  Tensors: cut off, and in whole steps, ties to even."""
    model = small_graph()
    grids = {"mix": Grid(0.5, 3, 0, 255), "mean": Grid(1.0, 0, -128, 127), "logits": Grid(0.25, 0, -4, 4)}
    round_as(model, Quantization(grids, {"mix.weight": 0, "head.weight": 1, "nowhere": 0}))
    weight, head = (onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer[:2])
    np.testing.assert_allclose(weight.reshape(2, 3) * 127 / [[3], [0.5]], [[127, 42, 0], [127, -66, 25]], rtol=1e-6)
    np.testing.assert_allclose(head * 127 / [1, 4], [[127, -64], [38, 127]], rtol=1e-6)
    images = np.array([[[[1, 2, 3]]], [[[0, 9, 0]]]], np.uint8)
    found = run_exactly(model, ["mix.rounded", "mean.rounded", "logits.rounded"], images)
    exact = images.reshape(2, 3) @ weight.reshape(2, 3).T
    expected = np.maximum(np.round(exact / 0.5), -3) * 0.5
    np.testing.assert_array_equal(found["mix.rounded"].reshape(2, 2), expected.astype(np.float32))
    assert found["mix.rounded"].min() == -1.5  # the end of the range
    np.testing.assert_array_equal(found["mean.rounded"].reshape(2, 2), np.round(np.clip(expected, 0, 6)))
    assert set(np.unique(found["logits.rounded"] * 4)) <= set(range(-4, 5))
    assert [output.name for output in model.graph.output] == ["logits.rounded"]


def test_an_int8_graph_run_as_it_is_written_is_its_own_reference(digits_bundle: Bundle, with_file: AddFile) -> None:
    images = digits_bundle.golden()[0]
    int8 = quantize(calibrate(fp32_graph(digits_bundle), images), "cpu")
    (written,), _ = run_graph(int8, images, Options(optimized=False))
    reference = int8_reference(with_file("graph", int8, precision="int8"), "onnxruntime", images)
    off = np.abs(reference - written).max(axis=1) / np.ptp(reference, axis=1)
    # A sum that is rounded otherwise can tip a value to the next step.
    assert np.median(off) < 1e-5 and off.max() < 1e-1
    weights = read_quantization(int8).weights
    assert weights["layer1.0.conv1.weight"] == 0 and "head.weight" not in weights


def test_without_onnx_the_reason_names_it(digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("samdeploy.models.sam_resnet.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)  # Python's own way to say "not installed"
    with pytest.raises(BackendUnavailable, match=r"needs? the package 'onnx', .*pip install 'samdeploy\[export\]'"):
        reference_tensors(digits_bundle, digits_bundle.golden()[0])
    with pytest.raises(BackendUnavailable, match="the package 'onnx', which is not installed"):
        read_quantization(b"")
