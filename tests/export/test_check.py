"""The check before anything is written finds graphs that are not the network."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
import torch

from samdeploy.backends.onnxruntime.session import emulate
from samdeploy.errors import ExportError
from samdeploy.export.check import check_graph
from samdeploy.export.fp16.convert import fp16_graph
from samdeploy.export.fp16.emulate import emulate_fp16
from samdeploy.graphs.edit import serialize
from samdeploy.models import Exported
from samdeploy.models.sam_resnet.fold import fold
from samdeploy.models.sam_resnet.onnx import graph_from_model

ARCH, GATE = "sam-resnet18", "original"


@pytest.fixture(scope="module")
def case(network, spec_of, examples):
    """A folded network, its graph in both precisions, and the trained network's logits."""
    spec, fp32 = spec_of(ARCH, GATE), graph_from_model(fold(network(ARCH, GATE)), spec_of(ARCH, GATE))
    with torch.inference_mode():
        logits = Exported(network(ARCH, GATE), spec)(torch.from_numpy(examples)).numpy()
    return SimpleNamespace(spec=spec, images=examples, logits=logits, models={"fp32": fp32, "fp16": fp16_graph(fp32)})


def check(case, model: onnx.ModelProto, precision: str = "fp32", *, images=None, logits=None) -> float:
    images = case.images if images is None else images
    logits = case.logits if logits is None else logits
    return check_graph(serialize(model), precision, images, logits)


def changed(model: onnx.ModelProto, name: str, change) -> onnx.ModelProto:
    """A copy of `model` in which the weight `name` went through `change`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    weight = next(weight for weight in copy.graph.initializer if weight.name == name)
    weight.CopyFrom(
        onnx.numpy_helper.from_array(np.ascontiguousarray(change(onnx.numpy_helper.to_array(weight))), name)
    )
    return copy


def test_the_right_graphs_pass(case) -> None:
    assert check(case, case.models["fp32"]) < 1e-5
    assert 1e-6 < check(case, case.models["fp16"], "fp16") < 2e-2


def test_fewer_images_than_the_largest_batch_are_enough(case) -> None:
    assert check(case, case.models["fp32"], images=case.images[:2], logits=case.logits[:2]) < 1e-5


def test_another_networks_graph(case, network, spec_of) -> None:
    other = graph_from_model(fold(network(ARCH, "identity")), spec_of(ARCH, "identity"))
    with pytest.raises(ExportError, match=r"fp32 graph, batch 1: logits differ from PyTorch's by .*, at most 1e-04"):
        check(case, other)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_swapped_classes(case, precision: str) -> None:
    def swap(array):
        array = array.copy()
        array[[2, 5]] = array[[5, 2]]
        return array

    model = changed(changed(case.models[precision], "head.weight", swap), "head.bias", swap)
    with pytest.raises(ExportError, match=rf"{precision} graph, batch 1: logits differ"):
        check(case, model, precision)


@pytest.mark.parametrize("weight", ["pixels.scale", "pixels.shift"])
def test_channels_in_another_order(case, weight: str) -> None:
    with pytest.raises(ExportError, match="logits differ"):
        check(case, changed(case.models["fp32"], weight, lambda array: array[:, ::-1]))


def test_a_fault_that_only_larger_batches_show(case) -> None:
    """The first image's gate for all: right at batch 1, wrong from batch 2 on."""
    model = onnx.ModelProto()
    model.CopyFrom(case.models["fp32"])
    nodes = model.graph.node
    index = next(i for i, node in enumerate(nodes) if node.name == "layer4.1.gated")
    nodes[index].input[1] = "first"
    for name, value in (("zero", 0), ("one", 1)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([value], np.int64), name))
    inputs = ["layer4.1.unsqueeze", "zero", "one", "zero"]
    nodes.insert(index, onnx.helper.make_node("Slice", inputs, ["first"], "first"))
    with pytest.raises(ExportError, match=r"fp32 graph, batch 2: logits differ"):
        check(case, model)


def test_logits_of_another_shape(case) -> None:
    model = changed(changed(case.models["fp32"], "head.weight", lambda a: a[:9]), "head.bias", lambda a: a[:9])
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 9
    with pytest.raises(ExportError, match=r"batch 1: logits \[1, 9\], expected \[1, 10\]"):
        check(case, model)


def test_logits_that_are_no_numbers(case) -> None:
    model = changed(case.models["fp32"], "head.bias", lambda array: array * np.float32("nan"))
    with pytest.raises(ExportError, match=r"fp32 graph, batch 1: 10 of 10 logits are not finite"):
        check(case, model)


def test_activations_beyond_fp16(case, network) -> None:
    """The last block's output grows 512-fold, so its product with its own mean 262,144-fold: weights fit, it does not.

    ONNX Runtime's CPU kernels do not see it, for they keep activations in FP32; the rounded run must.
    """
    net = fold(network(ARCH, GATE))
    with torch.no_grad():
        net.layer4[1].convs[1].weight *= 2.0**9
        net.layer4[1].convs[1].bias *= 2.0**9
        net.head.weight /= 2.0**9
    with torch.inference_mode():
        logits = Exported(net, case.spec)(torch.from_numpy(case.images)).numpy()
    fp32 = graph_from_model(net, case.spec)
    fp16 = fp16_graph(fp32)
    assert check(case, fp32, logits=logits) < 1e-5
    assert np.isfinite(emulate(serialize(fp16), case.images)).all()
    rounded = emulate_fp16(fp16, case.images)
    assert not np.isfinite(rounded).all(axis=1).any()
    assert np.isfinite(emulate_fp16(fp16_graph(fp32, ["layer4.1", "head"]), case.images)).all()
    with pytest.raises(ExportError) as caught:
        check(case, fp16, "fp16", logits=logits)
    bad = int((~np.isfinite(rounded)).sum())
    assert f"fp16 graph, activations rounded to FP16: {bad} of 160 logits are not finite" in str(caught.value)
    assert "activations leave the range of FP16 (65,504), export with --precision fp32" in str(caught.value)
