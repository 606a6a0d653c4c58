"""What INT8 quantises as a whole, in networks of several families, and the graphs that come of it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from samdeploy.backends.difference import difference_shares, image_ranges
from samdeploy.backends.onnxruntime.session import emulate
from samdeploy.bundle.spec import Preprocessing, model_spec
from samdeploy.export.int8 import qdq
from samdeploy.export.int8.units import find_units
from samdeploy.graphs.edit import constants, make_node, serialize, set_constant
from samdeploy.graphs.inference import open_inference
from samdeploy.graphs.pixels import NORMALISED
from samdeploy.models import build_model
from samdeploy.models.sam_resnet.fold import fold
from samdeploy.models.sam_resnet.onnx import graph_from_model
from tests.graphs.small import small_graph
from tests.traced import images, torchvision_resnet18


def sam_units(arch: str, gate: str, pixels: int) -> dict[str, tuple[str, ...]]:
    spec = model_spec(arch, {"gate": gate}, tuple("0123456789"), Preprocessing(pixels, pixels))
    return find_units(graph_from_model(fold(build_model(arch, 10, {"gate": gate}).eval()), spec))


# At 32 pixels the last stage has one position only, and its convolutions are still no gates.
@pytest.mark.parametrize("pixels", [32, 64])
def test_units_of_sam_resnet(pixels: int) -> None:
    units = sam_units("sam-resnet18", "identity", pixels)
    assert len(units) == 1 + 2 * 8
    assert units["stem"] == ("stem", "stem.relu", "maxpool")
    parts = [f"layer4.0.{part}" for part in ("conv1", "conv1.relu", "conv2", "downsample")]
    assert units["layer4.0.convs"] == tuple(parts)
    parts = ["mean", "flatten", "gate", "unsqueeze", "gated", "sum", "relu"]
    assert units["layer4.0.rest"] == tuple(f"layer4.0.{part}" for part in parts)
    assert units["layer1.1.convs"] == ("layer1.1.conv1", "layer1.1.conv1.relu", "layer1.1.conv2")
    bottleneck = sam_units("sam-resnet50", "original", pixels)["layer3.5.convs"]
    assert bottleneck == tuple(f"layer3.5.{part}" for part in ("conv1", "conv1.relu", "conv2", "conv2.relu", "conv3"))
    assert sam_units("sam-resnet18", "none", pixels)["layer2.1.rest"] == ("layer2.1.sum", "layer2.1.relu")


def test_units_of_a_traced_network() -> None:
    units = find_units(torchvision_resnet18().graph)
    assert list(units)[:3] == ["conv1", "layer1.0.convs", "layer1.0.rest"] and len(units) == 1 + 2 * 8
    assert units["layer1.0.convs"] == ("layer1.0.conv1", "layer1.0.relu", "layer1.0.conv2")
    assert units["layer1.0.rest"] == ("layer1.0.add", "layer1.0.relu.2")
    assert "fc" not in {node for nodes in units.values() for node in nodes}


def test_what_softmax_norm_and_gelu_read_stays() -> None:
    """One attention head whose mask is added to the scores in two layouts, then a GELU, a norm and a sum after it."""
    model = small_graph(
        make_node("Conv", "stem", [NORMALISED, "stem.weight"]),
        *[make_node("Conv", part, ["stem", f"{part}.weight"]) for part in ("q", "k", "v")],
        make_node("MatMul", "scores", ["q", "k"]),
        make_node("Mul", "scaled", ["scores", "scale"]),
        make_node("Transpose", "turned", ["scaled"], perm=[0, 1, 3, 2]),
        make_node("Add", "masked", ["turned", "mask"]),
        make_node("Softmax", "softmax", ["masked"], axis=-1),
        make_node("MatMul", "mixed", ["softmax", "v"]),
        make_node("Add", "sum", ["mixed", "stem"]),
        make_node("Conv", "expand", ["sum", "expand.weight"]),
        make_node("Div", "by", ["expand", "scale"]),
        make_node("Erf", "erf", ["by"]),
        make_node("Add", "one", ["erf", "scale"]),
        make_node("Mul", "gated", ["expand", "one"]),
        make_node("Mul", "half", ["gated", "scale"]),
        make_node("Add", "sum.2", ["half", "sum"]),
        make_node("LayerNormalization", "norm", ["sum.2", "gamma"]),
        make_node("Conv", "last", ["norm", "last.weight"]),
        make_node("Add", "sum.3", ["last", "norm"]),
        make_node("GlobalAveragePool", "pool", ["sum.3"]),
        make_node("Conv", "logits", ["pool", "last.weight"]),
        weights={
            **{f"{part}.weight": (3, 3, 1, 1) for part in ("stem", "q", "k", "v", "expand", "last")},
            **{"scale": (1,), "mask": (8, 8), "gamma": (8,)},
        },
    )
    quantised = {node for nodes in find_units(model).values() for node in nodes}
    every = {node.name for node in model.graph.node}
    stays = {"scaled", "turned", "masked", "by", "one", "gated", "half", "sum", "sum.2"}
    assert not stays & quantised
    assert {"q", "k", "v", "scores", "mixed", "expand", "last", "sum.3"} <= quantised <= every


@pytest.fixture(scope="module")
def calibrated() -> qdq.Calibrated:
    return qdq.calibrate(serialize(torchvision_resnet18().graph), images())


@pytest.mark.parametrize("form", ["cpu", "tensorrt"])
def test_a_traced_network_in_int8(calibrated: qdq.Calibrated, form: qdq.Form) -> None:
    graph = qdq.quantize(calibrated, form)
    model = onnx.load_from_string(graph)
    onnx.checker.check_model(model, full_check=True)
    weights = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    made = {name: node.op_type for node in model.graph.node for name in node.output}
    assert len(weights) == 20 and {made[name] for name in weights} == {"DequantizeLinear"}
    assert calibrated.share(()) > 99.9
    assert calibrated.share(["layer1.0.convs"]) < 90
    logits = torchvision_resnet18().answer(images())
    error = difference_shares(emulate(graph, images()), logits, image_ranges(logits)).max()
    assert 1e-3 < error < 0.3
    kept = onnx.load_from_string(qdq.quantize(calibrated, form, ["layer1.0.convs"]))
    floats = [node.name for node in kept.graph.node if node.op_type == "Conv" and node.input[1].endswith(".weight")]
    assert floats == ["layer1.0.conv1", "layer1.0.conv2"]


@pytest.mark.parametrize("form", ["cpu", "tensorrt"])
def test_constants_that_several_nodes_read(form: qdq.Form) -> None:
    """A weight of two convolutions and a scale of two products, as the exporter writes equal constants."""
    model = small_graph(
        make_node("Conv", "stem", [NORMALISED, "stem.weight"]),
        make_node("Conv", "first", ["stem", "weight"]),
        make_node("Mul", "scaled", ["first", "scale"]),
        make_node("Conv", "second", ["scaled", "weight"]),
        make_node("Mul", "scaled.2", ["second", "scale"]),
        make_node("GlobalAveragePool", "pool", ["scaled.2"]),
        make_node("Flatten", "logits", ["pool"], axis=1),
        weights={"stem.weight": (3, 3, 1, 1), "weight": (3, 3, 1, 1), "scale": (1,)},
    )
    draw = np.random.default_rng(0)
    for tensor in constants(model).values():
        if not tensor.name.startswith("pixels"):
            set_constant(tensor, draw.standard_normal(tensor.dims).astype(np.float32))
    pixels = np.ascontiguousarray(images()[:, :8, :8])
    graph = qdq.quantize(qdq.calibrate(serialize(model), pixels), form)
    open_inference(graph)
    quantised = onnx.load_from_string(graph)
    onnx.checker.check_model(quantised, full_check=True)
    assert len([node for node in quantised.graph.node if node.input[0] in constants(quantised)]) == 5
    found, expected = emulate(graph, pixels), emulate(serialize(model), pixels)
    assert difference_shares(found, expected, image_ranges(expected)).max() < 0.1


def test_tensorrt_reads_a_traced_network(calibrated: qdq.Calibrated) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="pip install 'samdeploy[tensorrt-rtx]'")
    log = trt.Logger(trt.Logger.INTERNAL_ERROR)
    network = trt.Builder(log).create_network(0)
    parser = trt.OnnxParser(network, log)
    assert parser.parse(qdq.quantize(calibrated, "tensorrt")), [
        parser.get_error(i).desc() for i in range(parser.num_errors)
    ]


@pytest.mark.parametrize("form", ["cpu", "tensorrt"])
def test_operators_of_other_networks(form: qdq.Form) -> None:
    """A squeeze-and-excitation block, a ReLU that ends at 6, a concatenation, a matrix product inside."""
    model = small_graph(
        make_node("Conv", "stem", [NORMALISED, "stem.weight"]),
        make_node("Clip", "stem.clip", ["stem", "zero", "six"]),
        make_node("GlobalAveragePool", "se.mean", ["stem.clip"]),
        make_node("Conv", "se.fc", ["se.mean", "se.weight"]),
        make_node("Sigmoid", "se.sigmoid", ["se.fc"]),
        make_node("Mul", "se.product", ["stem.clip", "se.sigmoid"]),
        make_node("Conv", "fork.conv", ["se.product", "fork.weight"]),
        make_node("Concat", "fork.concat", ["fork.conv", "se.product"], axis=1),
        make_node("Flatten", "flat", ["fork.concat"], axis=1),
        make_node("Gemm", "inner", ["flat", "inner.weight"], transB=1),
        make_node("Relu", "inner.relu", ["inner"]),
        make_node("MatMul", "head", ["inner.relu", "head.weight"], "logits"),
        weights={
            "stem.weight": (8, 3, 3, 3), "se.weight": (8, 8, 1, 1), "fork.weight": (8, 8, 1, 1),
            "inner.weight": (16, 16 * 36), "head.weight": (16, 4), "zero": (), "six": (),
        },
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        if tensor.name.endswith(".weight"):
            size = np.prod(tensor.dims[1:])
            array = (rng.normal(size=tensor.dims) / size**0.5).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        elif tensor.name == "six":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.float32(6), "six"))
    assert find_units(model) == {
        "stem": ("stem", "stem.clip"),
        "se.rest": ("se.mean", "se.fc", "se.sigmoid", "se.product"),
        "fork.conv.convs": ("fork.conv",),
        "fork.conv.rest": ("fork.concat", "flat"),
        "inner": ("inner", "inner.relu"),
    }
    examples = rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    graph = serialize(model)
    expected = emulate(graph, examples)
    quantised = qdq.quantize(qdq.calibrate(graph, examples), form)
    onnx.checker.check_model(onnx.load_from_string(quantised), full_check=True)
    error = difference_shares(emulate(quantised, examples), expected, image_ranges(expected)).max()
    assert 1e-4 < error < 0.1
    constants = {tensor.name: tensor.data_type for tensor in onnx.load_from_string(quantised).graph.initializer}
    assert constants["inner.weight_quantized"] == onnx.TensorProto.INT8 and "head.weight" in constants
    operators = [node.op_type for node in onnx.load_from_string(quantised).graph.node]
    assert ("Clip" in operators) == (form == "tensorrt")  # else it is the end of the range
