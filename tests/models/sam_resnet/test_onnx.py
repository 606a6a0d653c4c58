"""The written graph: the network's answers, a stable interface, one file, the promised types, the same bytes."""

from __future__ import annotations

import copy
from itertools import product

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest
import torch

from samdeploy.graphs.edit import serialize
from samdeploy.models import Exported
from samdeploy.models.graph import Normalize
from samdeploy.models.sam_resnet.fold import fold
from samdeploy.models.sam_resnet.onnx import graph_from_model

# Random networks amplify rounding, by a factor that nobody knows beforehand.  So the graph's distance from the float64
# truth is compared with PyTorch's own in float32; a wrong layer is off by thousands of times that.
FP32_RATIO = 5.0

CASES = [*product(("sam-resnet18", "sam-resnet50"), ("original", "bounded")), ("sam-resnet18", "none")]


def pytorch_logits(model, spec, images):
    """float32 [n, K] of the network as trained."""
    with torch.inference_mode():
        return Exported(model, spec)(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize(("arch", "gate"), CASES)
def test_graph_answers_as_the_trained_network(network, spec_of, examples, arch: str, gate: str) -> None:
    model, spec = network(arch, gate), spec_of(arch, gate)
    graph = serialize(graph_from_model(fold(model), spec))
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    normalized = Normalize(spec.preprocessing)(torch.from_numpy(examples[:7])).double()
    with torch.inference_mode():
        truth = copy.deepcopy(model).double()(normalized).numpy()
    span = float(np.ptp(truth))
    rounding = float(np.abs(pytorch_logits(model, spec, examples[:7]) - truth).max())
    assert 1e-8 * span < rounding < 1e-4 * span
    # Every image has an answer of its own: rows that were mixed up would show.
    assert min(np.abs(truth[i] - truth[j]).max() for i in range(7) for j in range(i)) > 1e-3 * span
    for batch in (1, 2, 7):
        (logits,) = session.run(["logits"], {"image": examples[:batch]})
        assert logits.dtype == np.float32
        assert float(np.abs(logits - truth[:batch]).max()) < FP32_RATIO * rounding


def test_interface(network, spec_of) -> None:
    spec = spec_of("sam-resnet18", "original")
    model = graph_from_model(fold(network("sam-resnet18", "original")), spec)

    def tensors(values):
        return [
            (
                value.name,
                onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type),
                [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim],
            )
            for value in values
        ]

    assert tensors(model.graph.input) == [("image", "UINT8", ["N", 32, 32, 3])]
    assert tensors(model.graph.output) == [("logits", "FLOAT", ["N", 10])]
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert model.ir_version == 8
    assert model.producer_name == "samdeploy"


def test_weights_lie_inside_the_file(network, spec_of) -> None:
    model = graph_from_model(fold(network("sam-resnet18", "original")), spec_of("sam-resnet18", "original"))
    for weight in model.graph.initializer:
        assert weight.data_location == onnx.TensorProto.DEFAULT
        assert not weight.external_data
        assert onnx.numpy_helper.to_array(weight).size > 0
    given = {weight.name for weight in model.graph.initializer}
    made = {output for node in model.graph.node for output in node.output}
    used = {name for node in model.graph.node for name in node.input}
    assert used <= given | made | {"image"}
    assert given <= used  # and nothing rides along unused


def test_equal_weights_give_equal_bytes(network, spec_of) -> None:
    model, spec = network("sam-resnet18", "original"), spec_of("sam-resnet18", "original")
    first, second = (serialize(graph_from_model(fold(model), spec)) for _ in range(2))
    assert first == second
    net = fold(model)
    with torch.no_grad():
        net.head.bias[0] += 0.5
    assert serialize(graph_from_model(net, spec)) != first


def test_nodes_are_called_after_their_layers(network, spec_of) -> None:
    net = fold(network("sam-resnet50", "original"))
    nodes = graph_from_model(net, spec_of("sam-resnet50", "original")).graph.node
    names = [node.name for node in nodes]
    assert len(set(names)) == len(names)
    convolutions = {node.name for node in nodes if node.op_type == "Conv"}
    parts = ("conv1", "conv2", "conv3")
    expected = {f"{name}.{part}" for name, _ in net.blocks() for part in parts} | {"stem"}
    expected |= {f"layer{stage}.0.downsample" for stage in range(1, 5)}
    assert convolutions == expected
    products = {node.name for node in nodes if node.op_type == "Gemm"}
    assert products == {f"{name}.gate" for name, _ in net.blocks()} | {"head"}
    # A tensor is called after the node that makes it.
    assert all(list(node.output) == [node.name] for node in nodes if node.name != "head")
    assert next(node for node in nodes if node.name == "head").output == ["logits"]
