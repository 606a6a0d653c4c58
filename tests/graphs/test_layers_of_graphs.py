"""Where a graph is cut into layers, and what each of them costs."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
import torch
from torch import nn

from samdeploy.bundle.spec import ModelSpec, Preprocessing, model_spec
from samdeploy.errors import ExportError
from samdeploy.graphs.cost import layer_multiply_adds, multiply_adds
from samdeploy.graphs.edit import attribute, make_node
from samdeploy.graphs.layers import find_layers
from samdeploy.graphs.pixels import NORMALISED, pixel_nodes
from samdeploy.models import build_model
from samdeploy.models.graph import Normalize
from samdeploy.models.sam_resnet.fold import fold
from samdeploy.models.sam_resnet.onnx import graph_from_model
from tests.graphs.small import small_graph
from tests.traced import torchvision_resnet18

BLOCKS = {"sam-resnet18": (2, 2, 2, 2), "sam-resnet50": (3, 4, 6, 3)}


def sam_graph(arch: str, gate: str, pixels: int = 64) -> tuple[nn.Module, onnx.ModelProto]:
    spec = model_spec(arch, {"gate": gate}, tuple("0123456789"), Preprocessing(pixels, pixels))
    net = fold(build_model(arch, 10, {"gate": gate}).eval())
    return net, graph_from_model(net, spec)


@pytest.mark.parametrize("gate", ["original", "identity", "none"])
@pytest.mark.parametrize("arch", BLOCKS)
def test_layers_of_sam_resnet_are_its_blocks(arch: str, gate: str) -> None:
    _, model = sam_graph(arch, gate)
    layers = find_layers(model)
    blocks = [f"layer{i}.{j}" for i, count in enumerate(BLOCKS[arch], start=1) for j in range(count)]
    assert [layer.name for layer in layers.network] == ["stem", *blocks, "head"]
    assert layers.pixels.nodes == ("pixels", "pixels.nchw", "pixels.scaled", "pixels.shifted")
    assert layers.network[0].nodes == ("stem", "stem.relu", "maxpool")
    assert layers.head.nodes == ("pool", "flatten", "head")
    assert [layer.output for layer in layers.network] == ["maxpool", *(f"{name}.relu" for name in blocks), "logits"]
    # Every node belongs to one layer.
    nodes = [name for layer in (layers.pixels, *layers.network) for name in layer.nodes]
    assert nodes == [node.name for node in model.graph.node]


def test_layers_of_a_traced_network_are_its_blocks() -> None:
    model = torchvision_resnet18().graph
    layers = find_layers(model)
    assert layers.pixels.output == NORMALISED
    operators = {node.name: node.op_type for node in model.graph.node}
    kinds = [[operators[name] for name in layer.nodes] for layer in layers.network]
    plain, shorter = ["Conv", "Relu", "Conv", "Add", "Relu"], ["Conv", "Relu", "Conv", "Conv", "Add", "Relu"]
    assert kinds[:-1] == [["Conv", "Relu", "MaxPool"], plain, plain, *[shorter, plain] * 3]
    assert kinds[-1] == ["GlobalAveragePool", "Reshape", "Gemm"]
    blocks = [f"layer{i}.{j}" for i in range(1, 5) for j in range(2)]
    assert [layer.name for layer in layers.network] == ["conv1", *blocks, "fc"]


def test_a_skip_from_the_image_on_joins_everything() -> None:
    model = small_graph(
        make_node("Conv", "a", [NORMALISED, "w"]),
        make_node("Conv", "b", ["a", "w"]),
        make_node("Add", "sum", [NORMALISED, "b"], "logits"),
        weights={"w": (3, 3, 1, 1)},
    )
    assert [(layer.name, layer.nodes) for layer in find_layers(model).network] == [("a", ("a", "b", "sum"))]


def test_shapes_are_no_path() -> None:
    """The batch size is read off the image at the very end, as exporters do."""
    model = small_graph(
        make_node("Conv", "a", [NORMALISED, "w"]),
        make_node("Conv", "b", ["a", "w"]),
        make_node("Shape", "size", ["image"]),
        make_node("Gather", "batch", ["size", "zero"]),
        make_node("Concat", "target", ["batch", "rest"], axis=0),
        make_node("Reshape", "flat", ["b", "target"], "logits"),
        weights={"w": (3, 3, 1, 1)},
    )
    for name, values in (("zero", [0]), ("rest", [-1])):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, np.int64), name))
    assert [layer.name for layer in find_layers(model).network] == ["a", "b"]


def test_layers_with_the_same_prefix_are_called_after_their_first_weighted_node() -> None:
    nodes = [
        make_node("Conv", "features.0", [NORMALISED, "w"]),
        make_node("Relu", "features.1", ["features.0"]),
        make_node("Conv", "features.2", ["features.1", "w"]),
        make_node("Relu", "features.3", ["features.2"], "logits"),
    ]
    model = small_graph(*nodes, weights={"w": (3, 3, 1, 1)})
    assert [layer.name for layer in find_layers(model).network] == ["features.0", "features.2"]


@pytest.mark.parametrize("name", ["", "a"])
def test_nodes_without_a_name_of_their_own_are_refused(name: str) -> None:
    nodes = [make_node("Conv", "a", [NORMALISED, "w"]), make_node("Relu", name, ["a"], "logits")]
    with pytest.raises(ExportError, match="some nodes have no name, or another node's"):
        find_layers(small_graph(*nodes, weights={"w": (3, 3, 1, 1)}))


def test_a_graph_without_weights_is_refused() -> None:
    with pytest.raises(ExportError, match="no node has weights; one of Conv, "):
        find_layers(small_graph(make_node("Relu", "a", [NORMALISED], "logits"), weights={}))


@pytest.mark.parametrize("gate", ["original", "none"])
@pytest.mark.parametrize("arch", BLOCKS)
def test_multiply_adds_are_those_of_the_modules(arch: str, gate: str) -> None:
    net, model = sam_graph(arch, gate)
    counted = 0

    def count(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        nonlocal counted
        counted += output[0].numel() * module.weight[0].numel()

    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.inference_mode():
        net(Normalize(Preprocessing(64, 64))(torch.zeros(1, 64, 64, 3, dtype=torch.uint8)))
    by_layer = layer_multiply_adds(model)
    assert sum(by_layer.values()) == counted
    assert list(by_layer) == [layer.name for layer in find_layers(model).network]
    assert by_layer["head"] == net.head.weight.numel()


def test_multiply_adds_of_a_traced_network() -> None:
    costs = list(layer_multiply_adds(torchvision_resnet18().graph).values())
    assert costs[0] == 32 * 48 * 64 * 3 * 49
    assert costs[1] == 2 * 16 * 24 * 64 * 64 * 9
    assert costs[3] == 8 * 12 * 128 * (64 * 9 + 128 * 9 + 64)
    assert costs[-1] == 512 * 10


def test_multiply_adds_of_groups_transposed_convolutions_and_products() -> None:
    model = small_graph(
        make_node("Conv", "deep", [NORMALISED, "d"], group=3),  # [N, 3, 6, 6]
        make_node("ConvTranspose", "wide", ["deep", "t"]),  # [N, 5, 7, 7]
        make_node("Reshape", "rows", ["wide", "shape"]),
        make_node("MatMul", "product", ["rows", "m"]),
        make_node("Transpose", "turned", ["product"], perm=[0, 2, 1]),
        make_node("MatMul", "square", ["product", "turned"], "logits"),
        weights={"d": (3, 1, 3, 3), "t": (3, 5, 2, 2), "m": (49, 4)},
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, 5, 49], np.int64), "shape"))
    assert multiply_adds(model) == {
        "deep": 3 * 36 * 9, "wide": 3 * 36 * 5 * 4, "product": 5 * 49 * 4, "square": 5 * 4 * 5,
    }  # fmt: skip


def test_a_cost_that_cannot_be_known_is_refused() -> None:
    model = small_graph(
        make_node("NonZero", "where", [NORMALISED]),
        make_node("Cast", "found", ["where"], to=onnx.TensorProto.FLOAT),
        make_node("MatMul", "product", ["w", "found"], "logits"),
        weights={"w": (2, 4)},
    )
    with pytest.raises(ExportError, match=r"cost of product \(MatMul\) unknown: its shapes cannot be inferred"):
        multiply_adds(model)


def test_the_normalisation_is_the_networks() -> None:
    spec: ModelSpec = model_spec("x", {}, ("a",), Preprocessing(8, 8, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)))
    nodes, constants = pixel_nodes("image", spec.preprocessing)
    normalize = Normalize(spec.preprocessing)
    scale, shift = (onnx.numpy_helper.to_array(constant) for constant in constants)
    assert np.array_equal(scale, normalize.scale.numpy()) and np.array_equal(shift, normalize.shift.numpy())
    assert [attribute(nodes[1], "perm"), attribute(nodes[0], "to"), attribute(nodes[0], "axis", 7)] == [
        [0, 3, 1, 2], onnx.TensorProto.FLOAT, 7,
    ]  # fmt: skip
