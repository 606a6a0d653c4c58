"""Layers that rescaling cannot help stay FP32, with a reason, and only they."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from samdeploy.errors import ExportError
from samdeploy.export.check import check_graph
from samdeploy.export.fp16.convert import convert, fp16_graph
from samdeploy.export.fp16.emulate import emulate_fp16
from samdeploy.export.fp16.headroom import measure_ranges
from samdeploy.export.fp16.plan import plan_fp16
from samdeploy.export.network import Network
from samdeploy.graphs.edit import serialize
from samdeploy.graphs.layers import find_layers
from samdeploy.models import Exported, family_of
from samdeploy.models.sam_resnet.fold import fold
from samdeploy.models.sam_resnet.onnx import graph_from_model
from tests.traced import changed_constant, images, torchvision_resnet18


def widen(net):
    """One block whose channels differ by 2**40: no single power of two per tensor brings both ends into FP16."""
    with torch.no_grad():
        block = net.layer1[1]
        conv1, conv2 = block.convs
        low, high = slice(0, 32), slice(32, 64)
        for part, factor in ((low, 2.0**-20), (high, 2.0**20)):
            conv1.weight[part] *= factor
            conv1.bias[part] *= factor
            conv2.weight[:, part] /= factor
    return net


def plan_of(net, spec, examples):
    network = Network(spec, family_of(spec.arch), net, net, graph_from_model(net, spec))
    return plan_fp16(network, measure_ranges(network.graph, examples), examples)


@pytest.fixture(scope="module")
def wide(network, spec_of, examples):
    spec = spec_of("sam-resnet18", "original")
    honest = fold(network("sam-resnet18", "original"))
    with torch.inference_mode():
        reference = Exported(honest, spec)(torch.from_numpy(examples)).numpy()
    net = widen(fold(network("sam-resnet18", "original")))
    return net, spec, reference, plan_of(net, spec, examples)


def test_only_the_hopeless_block_stays_fp32(wide, examples) -> None:
    _, _, reference, plan = wide
    assert list(plan.fp32) == ["layer1.1"]
    assert "FP16" in plan.fp32["layer1.1"]
    found = emulate_fp16(fp16_graph(plan.graph, plan.fp32), examples)
    assert np.isfinite(found).all()
    assert np.array_equal(found.argmax(1), reference.argmax(1))
    naive = emulate_fp16(convert(plan.graph, allow_overflow=True), examples)
    assert not np.allclose(naive, reference, atol=0.02 * np.ptp(reference))


def test_mixed_graph_is_typed_as_planned(wide, examples) -> None:
    _, _, reference, plan = wide
    model = fp16_graph(plan.graph, plan.fp32)
    types = {weight.name: weight.data_type for weight in model.graph.initializer}
    assert types.pop("spatial") == onnx.TensorProto.INT64
    for name, found in types.items():
        fp32 = name.startswith(("layer1.1.", "pixels."))
        assert found == (onnx.TensorProto.FLOAT if fp32 else onnx.TensorProto.FLOAT16), name
    casts = [node.name for node in model.graph.node if node.op_type == "Cast"]
    assert casts == ["pixels", "stem.cast", "layer1.1.cast", "layer2.0.cast", "logits"]
    assert check_graph(serialize(model), "fp16", examples, reference) < 5e-3


def test_naive_fp16_graph_of_an_overflowing_network_is_refused(wide, examples) -> None:
    net, spec, reference, _ = wide
    with pytest.raises(ExportError, match=r"finite|differ|fp16 ends at"):
        check_graph(serialize(fp16_graph(graph_from_model(net, spec))), "fp16", examples, reference)


def test_a_traced_network_needs_no_fp32_layer() -> None:
    network = torchvision_resnet18()
    plan = plan_fp16(network, measure_ranges(network.graph, images()), images())
    assert (plan.graph, plan.exponents, plan.fp32) == (network.graph, {}, {})


def test_without_rescaling_a_layer_that_overflows_stays_fp32() -> None:
    """The third block, 2**20 times larger inside: its weights and activations leave FP16."""
    network = torchvision_resnet18()
    graph = network.graph
    layer = find_layers(graph).network[3]
    nodes = {node.name: node for node in graph.graph.node}
    first, second = [nodes[name] for name in layer.nodes if nodes[name].op_type == "Conv"][:2]
    hot = graph
    for name, factor in ((first.input[1], 2.0**20), (first.input[2], 2.0**20), (second.input[1], 2.0**-20)):
        hot = changed_constant(hot, name, lambda array, factor=factor: array * np.float32(factor))
    ranges = measure_ranges(hot, images())
    plan = plan_fp16(replace(network, graph=hot), ranges, images())
    assert list(plan.fp32) == [layer.name] == ["layer2.0"]
    assert plan.fp32["layer2.0"].startswith("leaves the range of FP16 (65,504): layer2.0.conv1 reaches ")
    found = emulate_fp16(fp16_graph(hot, plan.fp32), images())
    exact = emulate_fp16(fp16_graph(graph), images())
    assert np.abs(found - exact).max() < 0.02 * np.ptp(exact)


def test_a_range_seen_on_other_images_decides_too() -> None:
    """An image among those that measure the head-room, and not among those that try the layers."""
    network = torchvision_resnet18()
    ranges = measure_ranges(network.graph, images())
    output = find_layers(network.graph).network[1].output
    beyond = tuple(row if row.name != output else type(row)(row.name, 7e4, row.below_normal) for row in ranges)
    plan = plan_fp16(network, beyond, images())
    assert plan.fp32 == {"layer1.0": f"leaves the range of FP16 (65,504): {output} reaches 7e+04"}
