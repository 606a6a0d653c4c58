"""`eval --why` names the tensor that departs first: faults are planted in real graphs of a real bundle."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from samdeploy.backends.device.cuda import cuda_devices
from samdeploy.backends.reference import NetworkTensors
from samdeploy.backends.tensors import EngineTensors, engine_tensors
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable, InputError
from samdeploy.evaluate.why.explain import TOLERANCE, explain_failure, explain_tensors
from tests.evaluate import faults
from tests.evaluate.departures import CPU_RUNTIMES, Seal, check_words_and_json, one_weight


def test_network_has_every_tensor_of_the_graph(digits_bundle: Bundle, reference: NetworkTensors) -> None:
    model = onnx.load(str(digits_bundle.root / "model.fp32.onnx"))
    assert list(reference.values) == [name for node in model.graph.node for name in node.output]


@pytest.mark.parametrize("backend", CPU_RUNTIMES)
def test_honest_engines_depart_nowhere(digits_bundle: Bundle, images: np.ndarray, backend: str) -> None:
    pytest.importorskip(backend)
    why = explain_failure(digits_bundle, backend, "fp32", images, device="cpu")
    assert (why.first, why.name) == (None, None)
    assert len(why.rows) > 70
    # Ten times below the tolerance, each of them; another order of sums is all that differs.
    assert max(row.error for row in why.rows) < TOLERANCE["fp32"] / 10
    assert why.engine_error < TOLERANCE["fp32"] / 10
    assert "no tensor departs by more than 1e-04" in why.cause
    by_name = {row.name: row for row in why.rows}
    assert by_name["layer2.0.sum"].inputs == ("layer2.0.gated", "layer2.0.downsample")
    assert by_name["layer2.1.sum"].inputs == ("layer2.1.gated", "layer2.0.relu")
    assert by_name["pixels"].inputs == ()
    both = [by_name[name].error for name in by_name["layer2.0.sum"].inputs]
    assert both[0] != both[1] and by_name["layer2.0.sum"].inputs_error == max(both)


def test_bfloat16_departs_nowhere_either(digits_bundle: Bundle, images: np.ndarray) -> None:
    pytest.importorskip("openvino")
    try:
        why = explain_failure(digits_bundle, "openvino", "bf16", images)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    assert why.first is None
    assert 1e-3 < max(row.error for row in why.rows) < TOLERANCE["bf16"] / 2


def negated_gate_bias(model: onnx.ModelProto) -> None:
    weight = faults._weights(model)["layer3.1.gate.weight"]
    faults._rewrite(weight, -onnx.numpy_helper.to_array(weight))


def a_step_too_many(model: onnx.ModelProto) -> None:
    """The skip of a block passes a second ReLU's mirror image: its values are halved."""
    node = next(node for node in model.graph.node if node.name == "layer1.1.relu")
    node.input[0] = "halved"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0.5, np.float32), "half"))
    place = list(model.graph.node).index(node)
    model.graph.node.insert(place, onnx.helper.make_node("Mul", ["layer1.1.sum", "half"], ["halved"], name="halved"))


def infinite_weight(model: onnx.ModelProto) -> None:
    weight = faults._weights(model)["layer1.0.conv1.bias"]
    array = onnx.numpy_helper.to_array(weight).copy()
    array[7] = np.inf
    faults._rewrite(weight, array)


def another_layout(model: onnx.ModelProto) -> None:
    """Height and width exchanged."""
    node = next(node for node in model.graph.node if node.name == "pixels.nchw")
    node.attribute[0].ints[:] = [0, 3, 2, 1]


PLANTED = {
    # fault: (edit, first tensor, words of the cause)
    "one weight": (
        one_weight,
        "layer2.0.conv2",
        ("its inputs are right", "weights or the bias of 'layer2.0.conv2'", "in 1 of 32 channels"),
    ),
    "a gate": (negated_gate_bias, "layer3.1.gate", ("weights or the bias of 'layer3.1.gate'",)),
    "swapped classes": (
        faults.swapped_classes,
        "logits",
        ("'9' in the column of '8', '8' in the column of '9'. In that order the logits are right",),
    ),
    "no normalisation": (
        faults.no_normalisation,
        "pixels.scaled",
        ("normalisation is missing: the engine takes pixels of 0 to 1; the bundle states mean (0.485, 0.456, 0.406)",),
    ),
    "wrong mean": (
        faults.wrong_mean,
        "pixels.shifted",
        ("the engine has mean (0.456, 0.456, 0.456) and std (0.229, 0.224, 0.225)",),
    ),
    "blue first": (faults.blue_first, "pixels.scaled", ("order of the channels: the engine takes red for blue",)),
    "another layout": (another_layout, "pixels.nchw", ("reads another layout than [N, H, W, 3]",)),
    "a step too many": (
        a_step_too_many,
        "layer1.1.relu",
        ("this step has no weights", "the graph has a step too many or too few"),
    ),
    "an infinite weight": (
        infinite_weight,
        "layer1.0.conv1",
        ("values are not finite, in 1 of 16 channels", "a weight of this step is damaged"),
    ),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_the_first_tensor_and_its_cause(
    fault: str, copy_of_bundle: Path, seal: Seal, images: np.ndarray, reference: NetworkTensors
) -> None:
    edit, name, words = PLANTED[fault]
    faults.edit_graph(copy_of_bundle, edit)
    why = explain_failure(seal(copy_of_bundle), "onnxruntime", "fp32", images, device="cpu")
    assert why.name == name
    assert all(part in why.cause for part in words), why.cause
    first = why.rows[why.first]
    assert first.error > TOLERANCE["fp32"] >= first.inputs_error
    assert first.inputs and set(first.inputs) <= {row.name for row in why.rows}  # through whatever lies between
    expected = math.log2(65504 / np.abs(reference.values[name]).max())
    assert first.bits == pytest.approx(expected)
    check_words_and_json(why)


def test_openvino_names_the_same_tensor(copy_of_bundle: Path, seal: Seal, images: np.ndarray) -> None:
    pytest.importorskip("openvino")
    faults.edit_graph(copy_of_bundle, one_weight)
    why = explain_failure(seal(copy_of_bundle), "openvino", "fp32", images)
    assert why.name == "layer2.0.conv2" and why.rows[why.first].channels_off == 1


def test_a_fault_that_only_the_engine_as_it_is_has(
    digits_bundle: Bundle, images: np.ndarray, reference: NetworkTensors
) -> None:
    """What a runtime fuses is not fused where its tensors are outputs; then it is known to be the runtime's."""
    found = engine_tensors(digits_bundle, "onnxruntime", "fp32", images, reference.values, device="cpu")
    answers = found.values["logits"] + np.float32(1)
    why = explain_tensors(digits_bundle.spec, reference, found, answers, {})
    assert why.first is None and why.engine_error > 1e-2
    assert "the fault is made where the runtime fuses or reorders steps" in why.cause


def test_coarse_arithmetic_is_told_from_a_wrong_step(
    digits_bundle: Bundle, images: np.ndarray, reference: NetworkTensors
) -> None:
    """An error that grows by a tenth with every tensor has no first step that is wrong."""
    found = engine_tensors(digits_bundle, "onnxruntime", "fp32", images, reference.values, device="cpu")
    grown = {}
    for step, (name, value) in enumerate(reference.values.items()):
        worst = value.copy()
        worst.flat[0] += np.float32(1e-2 * 1.1**step * np.ptp(value))
        grown[name] = worst
    coarse = EngineTensors("openvino", "bf16", "cpu", "fp32", grown, found.sources)
    why = explain_tensors(digits_bundle.spec, reference, coarse, grown["logits"], {})
    assert why.name is not None and not why.name.startswith("pixels")
    assert "no step is wrong by itself" in why.cause and "bf16 is too coarse" in why.cause


@pytest.mark.gpu
@pytest.mark.skipif(not cuda_devices()[0], reason=f"no CUDA device: {cuda_devices()[1]}")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_honest_engines_on_a_gpu_depart_nowhere(digits_bundle: Bundle, images: np.ndarray, precision: str) -> None:
    why = explain_failure(digits_bundle, "onnxruntime", precision, images, device="cuda")
    assert (why.first, why.device) == (None, "cuda")
    assert len(why.rows) > 70


def test_tensorrt_lets_no_tensors_out(digits_bundle: Bundle, images: np.ndarray) -> None:
    with pytest.raises(BackendUnavailable, match=r"does not let its intermediate tensors out.*--backend onnxruntime"):
        explain_failure(digits_bundle, "tensorrt", "fp16", images)


def test_unknown_names_and_unfit_precisions(digits_bundle: Bundle, images: np.ndarray) -> None:
    with pytest.raises(InputError, match="unknown backend 'onnx'; did you mean 'onnxruntime'"):
        explain_failure(digits_bundle, "onnx", "fp32", images)
    with pytest.raises(InputError, match="'onnxruntime' runs fp32, fp16, int8, not 'bf16'"):
        explain_failure(digits_bundle, "onnxruntime", "bf16", images)
    with pytest.raises(BackendUnavailable, match="FP16"):
        explain_failure(digits_bundle, "onnxruntime", "fp16", images, device="cpu")
