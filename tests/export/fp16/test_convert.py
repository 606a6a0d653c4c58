"""The FP16 graph: types, borders between precisions, rounded weights; and its emulation."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest

from samdeploy.backends.onnxruntime.session import emulate
from samdeploy.errors import ExportError
from samdeploy.export.check import check_graph
from samdeploy.export.fp16.convert import fp16_graph
from samdeploy.export.fp16.emulate import emulate_fp16, emulation
from samdeploy.graphs.edit import checked, constants, make_node, serialize
from samdeploy.graphs.layers import find_layers
from samdeploy.graphs.pixels import NORMALISED
from samdeploy.graphs.shapes import infer_tensors
from samdeploy.models.sam_resnet.fold import fold
from samdeploy.models.sam_resnet.onnx import graph_from_model
from tests.graphs.small import small_graph
from tests.traced import changed_constant, images, torchvision_resnet18

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def test_sam_resnet_in_fp16(network, spec_of, examples) -> None:
    model, spec = network("sam-resnet50", "identity"), spec_of("sam-resnet50", "identity")
    fp32 = graph_from_model(fold(model), spec)
    graph = fp16_graph(fp32)
    types = Counter(
        (node.op_type, weight.data_type)
        for node in graph.graph.node
        for weight in graph.graph.initializer
        if weight.name in node.input and weight.name.endswith(".weight")
    )
    # 1 stem, 16 blocks of three convolutions and a gate, 4 convolutions on skips; one head.
    assert types == {("Conv", HALF): 1 + 16 * 3 + 4, ("Gemm", HALF): 16 + 1}
    casts = [(node.name, node.attribute[0].i) for node in graph.graph.node if node.op_type == "Cast"]
    assert casts == [("pixels", FLOAT), ("stem.cast", HALF), ("logits", FLOAT)]
    # The other nodes, and the interface, stay.
    assert [node.name for node in graph.graph.node if node.op_type != "Cast"] == [
        node.name for node in fp32.graph.node if node.op_type != "Cast"
    ]
    assert (graph.graph.input, graph.graph.output) == (fp32.graph.input, fp32.graph.output)
    assert serialize(graph) == serialize(fp16_graph(fp32))
    assert np.isfinite(emulate(serialize(graph), examples[:3])).all()


@pytest.mark.parametrize("kept", [(), (3,), (0, 9), tuple(range(10))])
def test_a_traced_network_in_fp16(kept: tuple[int, ...]) -> None:
    network = torchvision_resnet18()
    fp32 = network.graph
    layers = find_layers(fp32)
    names = [layers.network[index].name for index in kept]
    model = fp16_graph(fp32, names)
    exact = {node for layer in (layers.pixels, *layers.network) for node in layer.nodes
             if layer is layers.pixels or layer.name in names}  # fmt: skip
    tensors = infer_tensors(model)
    for node in model.graph.node:
        floats = {tensors[name].type for name in node.input} & {FLOAT, HALF}
        if node.op_type != "Cast":
            assert floats <= {FLOAT if node.name in exact else HALF}, node.name
    error = check_graph(serialize(model), "fp16", images(), network.answer(images()))
    assert error < 1e-5 if len(kept) == 10 else 1e-5 < error < 2e-2


def test_a_weight_beyond_fp16_is_named() -> None:
    fp32 = torchvision_resnet18().graph
    model = changed_constant(fp32, "layer3.1.conv1.weight", lambda array: np.where(array == array.max(), -7e4, array))
    model = changed_constant(model, "layer3.1.conv1.weight", lambda array: array.astype(np.float32))
    text = r"layer3\.1\.conv1\.weight: \|weight\| up to 7e\+04 found, fp16 ends at 65504; export with --precision fp32"
    with pytest.raises(ExportError, match=text):
        fp16_graph(model)
    fp16_graph(model, [find_layers(model).network[6].name])  # kept in FP32, it is no problem


def test_a_weight_that_both_precisions_read_stays_exact() -> None:
    fp32 = small_graph(
        make_node("Conv", "a", [NORMALISED, "w"]),
        make_node("Conv", "b", ["a", "w"], "logits"),
        weights={"w": (3, 3, 1, 1)},
    )
    fp32 = changed_constant(fp32, "w", lambda array: array + np.float32(0.1))
    model = fp16_graph(fp32, ["a"])
    assert constants(model)["w"].data_type == FLOAT
    casts = [(list(node.input), node.output[0]) for node in model.graph.node if node.op_type == "Cast"][1:]
    assert casts == [(["a"], "b.cast"), (["w"], "w.b.cast"), (["b"], "logits")]
    rounded = fp16_graph(fp32)
    assert constants(rounded)["w"].data_type == HALF


def test_an_infinite_constant_stays_infinite() -> None:
    fp32 = small_graph(
        make_node("Conv", "a", [NORMALISED, "w"]),
        make_node("Clip", "cut", ["a", "", "top"], "logits"),
        weights={"w": (3, 3, 1, 1), "top": ()},
    )
    model = fp16_graph(changed_constant(fp32, "top", lambda array: np.full_like(array, np.inf)))
    assert np.isposinf(onnx.numpy_helper.to_array(constants(model)["top"]))


def test_floats_made_of_other_types_are_cast_where_they_are_read() -> None:
    """A ConstantOfShape and a cast from integers make FP32 wherever they stand."""
    fp32 = small_graph(
        make_node("Conv", "a", [NORMALISED, "w"]),
        make_node("Shape", "size", ["a"]),
        make_node("Cast", "lengths", ["size"], to=FLOAT),
        make_node("ReduceMax", "longest", ["lengths"], keepdims=0),
        make_node("Div", "scaled", ["a", "longest"], "logits"),
        weights={"w": (3, 3, 1, 1)},
    )
    model = fp16_graph(fp32)
    tensors = infer_tensors(model)
    assert [tensors[name].type for name in ("lengths", "longest", "scaled")] == [FLOAT, HALF, HALF]


def test_emulation_rounds_every_fp16_tensor() -> None:
    """Checked node by node: each output is what its operator gives in float32, rounded to FP16."""
    fp32 = torchvision_resnet18().graph
    model = emulation(fp16_graph(fp32))
    checked(model)
    tensors = infer_tensors(model)
    assert not any(tensor.data_type == HALF for tensor in model.graph.initializer)
    rounded = {node.output[0] for node in model.graph.node if node.name.endswith(".rounded")}
    halves = [node for node in fp16_graph(fp32).graph.node if node.op_type != "Cast"]
    expected = {name for node in halves for name in node.output} - set(find_layers(fp32).pixels.nodes)
    assert rounded >= expected - {NORMALISED, "pixels.nchw", "pixels.scaled"}
    # Nothing but the casts in between is FP16.
    halves = {name for name, tensor in tensors.items() if tensor.type == HALF}
    assert all(node.op_type == "Cast" for node in model.graph.node if halves & {*node.input, *node.output})


def test_emulation_rounds_every_output_of_a_node() -> None:
    fp32 = small_graph(
        make_node("Conv", "a", [NORMALISED, "w"]),
        onnx.helper.make_node("Split", ["a"], ["left", "right"], name="split", axis=1),
        make_node("Mul", "product", ["left", "right"]),
        make_node("Conv", "b", ["product", "v"], "logits"),
        weights={"w": (4, 3, 1, 1), "v": (2, 2, 1, 1)},
    )
    draw = np.random.default_rng(0)
    for name, shape in {"w": (4, 3, 1, 1), "v": (2, 2, 1, 1)}.items():
        values = draw.normal(size=shape).astype(np.float32)
        fp32 = changed_constant(fp32, name, lambda array, values=values: values)
    image = draw.integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    found, exact = emulate_fp16(fp16_graph(fp32), image), emulate(serialize(fp32), image)
    assert 0 < np.abs(found - exact).max() < 1e-2 * np.ptp(exact)


def test_emulation_sees_what_overflows_in_between() -> None:
    """Times 2**20 and back: each weight fits, the activation in between does not."""
    fp32 = small_graph(
        make_node("Conv", "a", [NORMALISED, "up"]),
        make_node("Conv", "b", ["a", "up"]),
        make_node("Conv", "c", ["b", "down"], "logits"),
        weights={"up": (3, 3, 1, 1), "down": (3, 3, 1, 1)},
    )
    up = np.float32(2.0**10) * np.eye(3, dtype=np.float32)[:, :, None, None]
    fp32 = changed_constant(fp32, "up", lambda array: up)
    fp32 = changed_constant(fp32, "down", lambda array: up / np.float32(2.0**20))
    image = np.full((1, 8, 8, 3), 255, np.uint8)
    assert np.isfinite(emulate(serialize(fp16_graph(fp32)), image)).all()  # ONNX Runtime keeps FP32 in between
    assert not np.isfinite(emulate_fp16(fp16_graph(fp32), image)).any()
    assert np.isfinite(emulate_fp16(fp16_graph(fp32, ["b", "c"]), image)).all()


def test_emulation_is_a_float16_computation() -> None:
    """Against numpy's own float16: products with one term have no order of sums."""
    fp32 = small_graph(
        make_node("Conv", "a", [NORMALISED, "w"], group=3),
        make_node("Mul", "square", ["a", "a"]),
        make_node("Conv", "b", ["square", "v"], "logits", group=3),
        weights={"w": (3, 1, 1, 1), "v": (3, 1, 1, 1)},
    )
    rng = np.random.default_rng(1)
    w, v = (rng.normal(size=(3, 1, 1, 1)).astype(np.float32) for _ in range(2))
    fp32 = changed_constant(changed_constant(fp32, "w", lambda array: w), "v", lambda array: v)
    image = rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    scale, shift = (onnx.numpy_helper.to_array(constants(fp32)[f"pixels.{name}"]) for name in ("scale", "shift"))
    x = (image.transpose(0, 3, 1, 2).astype(np.float32) * scale + shift).astype(np.float16)
    a = x * w.reshape(1, 3, 1, 1).astype(np.float16)
    expected = (a * a) * v.reshape(1, 3, 1, 1).astype(np.float16)
    assert expected.dtype == np.float16
    assert np.array_equal(emulate_fp16(fp16_graph(fp32), image), expected.astype(np.float32))
