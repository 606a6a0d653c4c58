"""The head-room map shows the true largest values, tensor by tensor."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from samdeploy.errors import ExportError
from samdeploy.export.fp16.headroom import TensorRange, measure_ranges
from samdeploy.models import Exported
from samdeploy.models.sam_resnet.fold import fold
from samdeploy.models.sam_resnet.onnx import graph_from_model
from tests.traced import images, torchvision_resnet18


@pytest.mark.parametrize("arch", ["sam-resnet18", "sam-resnet50"])
def test_every_tensor_is_measured(arch, network, spec_of, examples) -> None:
    spec = spec_of(arch, "original")
    net = fold(network(arch, "original"))
    model = graph_from_model(net, spec)
    rows = {row.name: row for row in measure_ranges(model, examples)}
    assert list(rows) == [name for node in model.graph.node for name in node.output]

    exported = Exported(net, spec)
    with torch.inference_mode():
        x = exported.normalize(torch.from_numpy(examples))
        stem = net.stem(x)
        logits = exported(torch.from_numpy(examples))
    assert rows["stem"].max_abs == pytest.approx(float(stem.abs().max()), rel=1e-5)
    assert rows["logits"].max_abs == pytest.approx(float(logits.abs().max()), rel=1e-5)
    assert rows["pixels"].max_abs == 255


def test_every_float_of_a_traced_network_is_measured() -> None:
    network = torchvision_resnet18()
    rows = {row.name: row for row in measure_ranges(network.graph, images())}
    assert list(rows) == [name for node in network.graph.graph.node for name in node.output]
    assert rows["logits"].max_abs == pytest.approx(float(np.abs(network.answer(images())).max()), rel=1e-5)


def test_bits_count_doublings_up_to_the_end_of_fp16() -> None:
    assert TensorRange("t", 65504.0, 0.0).bits == 0
    assert TensorRange("t", 65504.0 / 8, 0.0).bits == 3
    assert TensorRange("t", 65504.0 * 4, 0.0).bits == -2
    assert TensorRange("t", 0.0, 0.0).bits == math.inf


def test_share_below_the_smallest_normal_counts_non_zero_values(spec_of, network, examples) -> None:
    spec = spec_of("sam-resnet18", "original")
    net = fold(network("sam-resnet18", "original"))
    with torch.no_grad():
        net.stem.weight.mul_(1e-6)
        net.stem.bias.mul_(1e-6)
    rows = {row.name: row for row in measure_ranges(graph_from_model(net, spec), examples)}
    with torch.inference_mode():
        stem = net.stem(Exported(net, spec).normalize(torch.from_numpy(examples))).numpy()
    small = np.count_nonzero((np.abs(stem) < 2.0**-14) & (stem != 0)) / np.count_nonzero(stem)
    assert small > 0.9
    assert rows["stem"].below_normal == pytest.approx(100 * small, abs=0.01)


def test_values_that_are_not_finite_are_refused(spec_of, network, examples) -> None:
    spec = spec_of("sam-resnet18", "original")
    net = fold(network("sam-resnet18", "original"))
    with torch.no_grad():
        net.layer2[0].convs[0].bias[:] = 3e38
    with pytest.raises(ExportError, match=r"layer2\.0\.conv2: not finite in FP32 on a training image"):
        measure_ranges(graph_from_model(net, spec), examples)
