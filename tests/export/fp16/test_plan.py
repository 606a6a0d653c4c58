"""Layers that rescaling cannot help stay FP32, with a reason, and only they."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import torch

from samdeploy.errors import ExportError
from samdeploy.export.check import check_graph
from samdeploy.export.fp16.headroom import measure_ranges
from samdeploy.export.fp16.plan import fp16_logits, plan_fp16
from samdeploy.models import Exported
from samdeploy.models.sam_resnet.fold import fold
from samdeploy.models.sam_resnet.onnx import graph_from_model, serialize


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


@pytest.fixture(scope="module")
def wide(network, spec_of, pictures):
    spec = spec_of("sam-resnet18", "original")
    honest = fold(network("sam-resnet18", "original"))
    with torch.inference_mode():
        reference = Exported(honest, spec)(torch.from_numpy(pictures)).numpy()
    net = widen(fold(network("sam-resnet18", "original")))
    ranges = measure_ranges(serialize(graph_from_model(net, spec, "fp32")), pictures)
    return net, spec, reference, plan_fp16(net, spec, ranges, pictures)


def test_only_the_hopeless_block_stays_fp32(wide, pictures) -> None:
    _, spec, reference, plan = wide
    assert list(plan.fp32) == ["layer1.1"]
    assert "FP16" in plan.fp32["layer1.1"]
    found = fp16_logits(plan.net, spec, pictures, plan.fp32)
    assert np.isfinite(found).all()
    assert np.array_equal(found.argmax(1), reference.argmax(1))
    assert not np.allclose(fp16_logits(plan.net, spec, pictures), reference, atol=0.02 * np.ptp(reference))


def test_mixed_graph_is_typed_as_planned(wide, pictures) -> None:
    _, spec, reference, plan = wide
    model = graph_from_model(plan.net, spec, "fp16", plan.fp32)
    types = {weight.name: weight.data_type for weight in model.graph.initializer}
    for name, found in types.items():
        fp32 = name.startswith(("layer1.1.", "pixels."))
        assert found == (onnx.TensorProto.FLOAT if fp32 else onnx.TensorProto.FLOAT16), name
    casts = [node.name for node in model.graph.node if node.op_type == "Cast"]
    assert casts == ["pixels", "stem.cast", "layer1.1.cast", "layer2.0.cast", "logits"]
    assert check_graph(serialize(model), "fp16", plan.net, spec, pictures, reference, plan.fp32) < 5e-3


def test_naive_fp16_graph_of_an_overflowing_network_is_refused(wide, pictures) -> None:
    net, spec, reference, _ = wide
    with pytest.raises(ExportError, match=r"finite|differ|fp16 ends at"):
        graph = serialize(graph_from_model(net, spec, "fp16"))
        check_graph(graph, "fp16", net, spec, pictures, reference)


def test_weight_that_fp16_cannot_hold_is_named(network, spec_of) -> None:
    net = fold(network("sam-resnet18", "original"))
    with torch.no_grad():
        net.layer3[1].convs[0].weight[0, 0, 0, 0] = 1e6
    with pytest.raises(ExportError, match=r"layer3\.1\.conv1\.weight: \|weight\| up to 1e\+06 found, fp16 ends at"):
        graph_from_model(net, spec_of("sam-resnet18", "original"), "fp16")
    values = {
        weight.name: onnx.numpy_helper.to_array(weight)
        for weight in graph_from_model(net, spec_of("sam-resnet18", "original"), "fp32").graph.initializer
    }
    assert values["layer3.1.conv1.weight"][0, 0, 0, 0] == 1e6
