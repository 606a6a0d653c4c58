"""FP16 tensors that are stored smaller, and INT8 tensors after their rounding, are compared as what they stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from samdeploy.backends import tensors
from samdeploy.backends.onnxruntime import session as ort_backend
from samdeploy.backends.reference import NetworkTensors, graph_tensors
from samdeploy.backends.tensors import EngineTensors
from samdeploy.bundle import Bundle
from samdeploy.evaluate.why.explain import TOLERANCE, explain_failure, explain_tensors
from samdeploy.models import build_model, load_weights
from tests.evaluate import faults
from tests.evaluate.departures import CPU_RUNTIMES, Seal, check_words_and_json


def emulated(graph: bytes, reference: NetworkTensors, images: np.ndarray) -> EngineTensors:
    """The tensors of an FP16 graph as the CPU computes it: rounded weights, float32 in between."""
    model = onnx.load_from_string(graph)
    wanted = tensors._watch(model, reference.values)
    values = ort_backend.emulate_all(model.SerializeToString(), images)
    found = dict(zip(wanted, values, strict=True))
    return EngineTensors("onnxruntime", "fp16", "cpu", "fp16", found, tensors._sources(model, wanted))


def test_tensors_that_are_stored_smaller_are_compared_as_they_are(digits_run: Path, images: np.ndarray) -> None:
    """Weights that leave FP16: the export stores tensors times powers of two, and that is no departure."""
    from samdeploy.bundle.spec import model_spec
    from samdeploy.export.fp16.convert import fp16_graph
    from samdeploy.export.fp16.headroom import measure_ranges
    from samdeploy.export.fp16.plan import plan_fp16
    from samdeploy.export.network import prepare_network
    from samdeploy.graphs.edit import serialize
    from samdeploy.runs.record import open_run

    record = open_run(digits_run)
    spec = model_spec(record.arch, record.options, record.classes, record.preprocessing)
    model = build_model(record.arch, len(record.classes), record.options)
    load_weights(model, digits_run / "weights.safetensors")
    model.eval()
    block = model.layer2[1]
    for value in (block.bn1.weight, block.bn1.bias):
        value.data *= 2.0**16
    block.conv2.weight.data /= 2.0**16
    network = prepare_network(model, spec)
    plan = plan_fp16(network, measure_ranges(network.graph, images), images)
    stored = plan.exponents
    assert stored["layer2.1.conv1"] > 0

    hot = graph_tensors(network.graph, images)
    found = emulated(serialize(fp16_graph(plan.graph, plan.fp32)), hot, images)
    why = explain_tensors(spec, hot, found, found.values["logits"], stored)
    assert why.first is None and max(row.error for row in why.rows) < TOLERANCE["fp16"] / 5
    by_name = {row.name: row for row in why.rows}
    assert by_name["layer2.1.conv1"].bits > 2.9  # as stored; the true values are beyond the end
    assert np.abs(hot.values["layer2.1.conv1"]).max() > 65504
    # Without the exponents the very same tensors would be accused.
    blind = explain_tensors(spec, hot, found, found.values["logits"], {})
    assert blind.first is not None

    # And without the rescaling they overflow: FP16 rounds to infinity what lies beyond its end.
    plain = emulated(serialize(network.graph), hot, images)
    with np.errstate(over="ignore"):
        rounded = {name: value.astype(np.float16).astype(np.float32) for name, value in plain.values.items()}
    burst = EngineTensors("onnxruntime", "fp16", "cuda", "fp16", rounded, plain.sources)
    why = explain_tensors(spec, hot, burst, rounded["logits"], {})
    assert why.name == "layer2.1.conv1"
    assert "overflow; the network's own values go to" in why.cause and "FP16 ends at 65,504" in why.cause
    assert why.rows[why.first].bits < 0
    check_words_and_json(why)


@pytest.mark.parametrize("backend", CPU_RUNTIMES)
def test_int8_is_compared_after_its_rounding(int8_bundle: Bundle, images: np.ndarray, backend: str) -> None:
    """A ReLU that became the lower end of a quantiser, and values that were rounded to 256 levels, are no departure."""
    pytest.importorskip(backend)
    why = explain_failure(int8_bundle, backend, "int8", images)
    assert why.first is None
    assert 1e-3 < max(row.error for row in why.rows) < TOLERANCE["int8"]
    by_name = {row.name: row for row in why.rows}
    assert len(by_name) > 50 and "layer4.1.conv1.relu" in by_name
    assert by_name["layer1.0.conv1.relu"].inputs == ("maxpool",)


def test_a_weight_before_a_fused_relu_is_named(
    int8_bundle: Bundle, images: np.ndarray, tmp_path: Path, seal: Seal
) -> None:
    """The quantiser makes the ReLU the end of its range: the convolution's own tensor is nowhere to be seen."""
    import shutil

    root = tmp_path / "bundle"
    shutil.copytree(int8_bundle.root, root)
    model = onnx.load(str(root / "model.int8.onnx"))
    (name,) = [name for name in faults._weights(model) if name.startswith("layer3.0.conv1.weight_quant")]
    weight = faults._weights(model)[name]
    faults._rewrite(weight, -np.maximum(onnx.numpy_helper.to_array(weight), -127))
    (root / "model.int8.onnx").write_bytes(model.SerializeToString())
    why = explain_failure(seal(root), "onnxruntime", "int8", images)
    assert why.name == "layer3.0.conv1.relu"
    assert "the weights or the bias of 'layer3.0.conv1' in the engine are not the trained ones" in why.cause
    check_words_and_json(why)


def test_a_range_that_is_too_small_is_named(
    int8_bundle: Bundle, images: np.ndarray, tmp_path: Path, seal: Seal
) -> None:
    import shutil

    root = tmp_path / "bundle"
    shutil.copytree(int8_bundle.root, root)

    model = onnx.load(str(root / "model.int8.onnx"))
    scale = faults._weights(model)["layer2.0.conv1.relu_scale"]
    faults._rewrite(scale, onnx.numpy_helper.to_array(scale) / np.float32(4))
    (root / "model.int8.onnx").write_bytes(model.SerializeToString())
    why = explain_failure(seal(root), "onnxruntime", "int8", images)
    assert why.name == "layer2.0.conv1.relu"
    assert "the range of int8" in why.cause and "are cut off" in why.cause
    check_words_and_json(why)
