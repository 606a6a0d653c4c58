"""Rescaling by powers of two changes no bit of FP32 logits and gives FP16 the room it lacked."""

from __future__ import annotations

import copy
from itertools import product

import numpy as np
import pytest
import torch

from samdeploy.bundle.names import WEIGHTS_FILE
from samdeploy.bundle.spec import model_spec
from samdeploy.data import load_images, open_dataset
from samdeploy.errors import BackendUnavailable
from samdeploy.export.fp16.convert import convert, fp16_graph
from samdeploy.export.fp16.emulate import emulate_fp16
from samdeploy.export.fp16.headroom import FP16_MAX, measure_ranges
from samdeploy.export.fp16.plan import plan_fp16
from samdeploy.export.network import Network
from samdeploy.graphs.edit import serialize
from samdeploy.models import Exported, build_model, load_weights
from samdeploy.models.sam_resnet.family import FAMILY
from samdeploy.models.sam_resnet.fold import fold
from samdeploy.models.sam_resnet.onnx import graph_from_model
from samdeploy.models.sam_resnet.rescale import TARGET, choose_scales, rescale
from samdeploy.runs.record import open_run

GATES = ("original", "bounded", "none")


def inflate(net, gate):
    """The same function with tensors that leave FP16: a hidden one, a block's output, and the sum of a stage."""
    net = copy.deepcopy(net)
    with torch.no_grad():
        block = net.layer2[1]
        block.bn1.weight *= 2.0**18
        block.bn1.bias *= 2.0**18
        block.conv2.weight /= 2.0**18
        if gate == "original":  # x * W·GAP(x): x times s, W over s squared
            block = net.layer3[0]
            last = block.bn3 if hasattr(block, "bn3") else block.bn2
            last.weight *= 2.0**16
            last.bias *= 2.0**16
            block.sl.fc.weight /= 2.0**32
        for block in net.layer4:
            last = block.bn3 if hasattr(block, "bn3") else block.bn2
            last.weight *= 2.0**15
            last.bias *= 2.0**15
            if gate != "none":
                block.sl.fc.weight /= 2.0**15
        net.layer4[0].downsample[1].weight *= 2.0**15
        net.layer4[0].downsample[1].bias *= 2.0**15
        for block in net.layer4[1:]:
            block.conv1.weight /= 2.0**15
        head = net.fc if isinstance(net.fc, torch.nn.Linear) else net.fc[0]
        head.weight /= 2.0**15
    return net


def rounded(net, spec, examples):
    """Logits in emulated FP16, as the network stands."""
    return emulate_fp16(convert(graph_from_model(net, spec), allow_overflow=True), examples)


def plan_of(net, spec, examples):
    """The plan, and the network that its graph was written from."""
    nets = {}

    class Family:
        @staticmethod
        def rescale(model, largest):
            scaled = FAMILY.rescale(model, largest)
            nets["rescaled"] = scaled.model
            return scaled

        to_onnx = staticmethod(graph_from_model)

    network = Network(spec, Family, net, net, graph_from_model(net, spec))
    plan = plan_fp16(network, measure_ranges(network.graph, examples), examples)
    assert plan.exponents or plan.graph is network.graph
    return plan, nets["rescaled"]


def logits(net, spec, examples):
    with torch.inference_mode():
        return Exported(net, spec)(torch.from_numpy(examples)).numpy()


@pytest.mark.parametrize(("arch", "gate"), [*product(["sam-resnet18"], GATES), ("sam-resnet50", "bounded")])
def test_planted_overflow_comes_out_finite_and_equal(arch, gate, network, spec_of, examples) -> None:
    examples = examples[:6]
    spec = spec_of(arch, gate)
    honest = network(arch, gate)
    reference = logits(honest, spec, examples)
    net = fold(inflate(honest, gate))
    assert np.array_equal(logits(net, spec, examples), logits(fold(honest), spec, examples))  # the plant is exact
    assert not np.isfinite(rounded(net, spec, examples)).all()  # and the naive export fails

    plan, scaled = plan_of(net, spec, examples)
    assert plan.fp32 == {}
    assert np.array_equal(logits(scaled, spec, examples), logits(net, spec, examples))
    found = rounded(scaled, spec, examples)
    assert np.isfinite(found).all()
    # FP16 costs what it costs the network without the plant, not more than twice that.
    usual = np.abs(rounded(fold(honest), spec, examples) - reference).max()
    assert np.abs(found - reference).max() < 2 * usual


def in_fp16_on_this_cpu(graph, examples):
    """Logits of a graph, computed in FP16 by OpenVINO; skips where the CPU cannot."""
    pytest.importorskip("openvino", reason="pip install 'samdeploy[openvino]'")
    from samdeploy.backends.openvino.session import run_outputs

    try:
        (found,), _ = run_outputs(serialize(graph), "cpu", "fp16", examples)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    return np.asarray(found)


@pytest.mark.parametrize("arch", ["sam-resnet18", "sam-resnet50"])
def test_planted_overflow_in_real_fp16(arch, network, spec_of, examples) -> None:
    """On a CPU that computes in FP16: without rescaling not a number, with it what PyTorch's rounding foretells."""
    spec = spec_of(arch, "original")
    honest = network(arch, "original")
    reference = logits(honest, spec, examples)
    net = fold(inflate(honest, "original"))
    assert not np.isfinite(in_fp16_on_this_cpu(graph_from_model(net, spec), examples)).all()
    plan, _ = plan_of(net, spec, examples)
    found = in_fp16_on_this_cpu(fp16_graph(plan.graph), examples)
    assert np.array_equal(found.argmax(axis=1), reference.argmax(axis=1))
    foretold = np.abs(emulate_fp16(fp16_graph(plan.graph), examples) - reference).max()
    assert np.abs(found - reference).max() < 2 * foretold


@pytest.mark.parametrize("arch", ["sam-resnet18", "sam-resnet50"])
def test_exponents_name_the_tensors_of_the_graph(arch, network, spec_of, examples) -> None:
    """What the rescaled graph really holds is the old value times 2**-k, for every tensor."""
    spec = spec_of(arch, "original")
    net = fold(inflate(network(arch, "original"), "original"))
    before = measure_ranges(graph_from_model(net, spec), examples)
    scales = choose_scales(net, {row.name: row.max_abs for row in before})
    exponents = scales.exponents()
    assert exponents
    after = measure_ranges(graph_from_model(rescale(net, scales), spec), examples)
    for old, new in zip(before, after, strict=True):
        assert new.name == old.name
        assert new.max_abs == old.max_abs * 2.0 ** -exponents.get(old.name, 0), old.name
        if not new.name.startswith("pixels"):
            assert new.max_abs <= TARGET < FP16_MAX, new.name


def test_roomy_network_is_left_alone(network, spec_of, examples) -> None:
    spec = spec_of("sam-resnet18", "original")
    net = fold(network("sam-resnet18", "original"))
    plan, scaled = plan_of(net, spec, examples)
    assert scaled is net
    assert plan.exponents == {}
    assert plan.fp32 == {}


def test_rescale_leaves_its_input_alone(network, spec_of, examples) -> None:
    spec = spec_of("sam-resnet18", "original")
    net = fold(inflate(network("sam-resnet18", "original"), "original"))
    before = copy.deepcopy(net.state_dict())
    ranges = measure_ranges(graph_from_model(net, spec), examples)
    rescale(net, choose_scales(net, {row.name: row.max_abs for row in ranges}))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_trained_network_answers_all_test_images_alike(digits_run) -> None:
    """Naive FP16 gives no finite answer; rescaled, every test image keeps its class, with all layers in FP16."""
    record = open_run(digits_run)
    spec = model_spec(record.arch, record.options, record.classes, record.preprocessing)
    model = build_model(record.arch, len(record.classes), record.options)
    load_weights(model, digits_run / WEIGHTS_FILE)
    dataset = open_dataset(record.dataset)
    test, _ = load_images(dataset.test, record.preprocessing, description="test")
    train, _ = load_images(dataset.train.take(np.arange(64)), record.preprocessing, description="train")
    net = fold(inflate(model.eval(), str(record.options["gate"])))
    expected = logits(net, spec, test)
    assert not np.isfinite(rounded(net, spec, test)).all()
    plan, _ = plan_of(net, spec, train)
    assert plan.fp32 == {}
    found = emulate_fp16(fp16_graph(plan.graph), test)
    assert np.isfinite(found).all()
    # The digits are easy: no image's two best logits lie within FP16's error of each other.
    assert np.array_equal(found.argmax(1), expected.argmax(1))
