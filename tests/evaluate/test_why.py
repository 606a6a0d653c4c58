"""`eval --why` names the tensor that departs first: faults are planted in real graphs of a real bundle."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from samdeploy.backends import onnxruntime as ort_backend
from samdeploy.backends import tensors
from samdeploy.backends.cuda import cuda_devices
from samdeploy.backends.tensors import EngineTensors, engine_tensors, reference_tensors
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.errors import BackendUnavailable, InputError
from samdeploy.evaluate import EvalOptions, evaluate_bundle, table
from samdeploy.evaluate.test_set import TestSet, open_test_set
from samdeploy.evaluate.why import TOLERANCE, Why, explain_failure, explain_tensors, worst_pictures
from samdeploy.evaluate.why_pixels import normalisation_fault
from samdeploy.evaluate.why_table import why_table
from samdeploy.evaluate.why_tensors import error_share
from samdeploy.files import json_bytes
from samdeploy.models import build_model, load_weights
from samdeploy.spec import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from tests.evaluate import faults

Seal = Callable[[Path], Bundle]
Expected = dict[str, np.ndarray]
CPU_RUNTIMES = ("onnxruntime", "openvino")


@pytest.fixture(scope="module")
def images(digits_bundle: Bundle) -> np.ndarray:
    return digits_bundle.golden()[0][:4]


@pytest.fixture(scope="module")
def reference(digits_bundle: Bundle, images: np.ndarray) -> Expected:
    return reference_tensors(digits_bundle, images)


# --- tensors of honest engines ----------------------------------------------------------------------------------------


def test_the_network_has_every_tensor_of_the_graph_and_no_other(digits_bundle: Bundle, reference: Expected) -> None:
    model = onnx.load(str(digits_bundle.root / "model.fp32.onnx"))
    assert list(reference) == [name for node in model.graph.node for name in node.output]


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


# --- planted faults ---------------------------------------------------------------------------------------------------


def one_weight(model: onnx.ModelProto) -> None:
    """One of the 147,456 weights of a convolution."""
    weight = faults._weights(model)["layer2.0.conv2.weight"]
    array = onnx.numpy_helper.to_array(weight).copy()
    array[3, 5, 1, 1] += 0.5
    faults._rewrite(weight, array)


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
        ("its inputs are right", "weights or the bias of 'layer2.0.conv2'", "in 1 of 128 channels"),
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
        ("values are not finite, in 1 of 64 channels", "a weight of this step is damaged"),
    ),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_the_first_tensor_and_its_cause(
    fault: str, copy_of_bundle: Path, seal: Seal, images: np.ndarray, reference: Expected
) -> None:
    edit, name, words = PLANTED[fault]
    faults.edit_graph(copy_of_bundle, edit)
    why = explain_failure(seal(copy_of_bundle), "onnxruntime", "fp32", images, device="cpu")
    assert why.name == name
    assert all(part in why.cause for part in words), why.cause
    first = why.rows[why.first]
    assert first.error > TOLERANCE["fp32"] >= first.inputs_error
    assert first.inputs and set(first.inputs) <= {row.name for row in why.rows}  # through whatever lies between
    expected = math.log2(65504 / np.abs(reference[name]).max())
    assert first.bits == pytest.approx(expected)
    check_words_and_json(why)


def check_words_and_json(why: Why) -> None:
    text = why_table(why)
    assert max(len(line) for line in text.splitlines()) <= 80
    marked = [line.split()[0] for line in text.splitlines() if line.endswith("<")]
    assert marked == [why.name]
    assert " ".join(text.split()).endswith(f"likely cause: {' '.join(why.cause.split())}")
    values = json.loads(json_bytes(why.to_json()))
    assert (values["first"], values["cause"], values["n_tensors"]) == (why.name, why.cause, len(why.rows))
    assert why.name in [row["name"] for row in values["tensors"]]


def test_openvino_names_the_same_tensor(copy_of_bundle: Path, seal: Seal, images: np.ndarray) -> None:
    pytest.importorskip("openvino")
    faults.edit_graph(copy_of_bundle, one_weight)
    why = explain_failure(seal(copy_of_bundle), "openvino", "fp32", images)
    assert why.name == "layer2.0.conv2" and why.rows[why.first].channels_off == 1


def test_a_fault_that_only_the_engine_as_it_is_has(
    digits_bundle: Bundle, images: np.ndarray, reference: Expected
) -> None:
    """What a runtime fuses is not fused where its tensors are outputs; then it is known to be the runtime's."""
    found = engine_tensors(digits_bundle, "onnxruntime", "fp32", images, reference, device="cpu")
    answers = found.values["logits"] + np.float32(1)
    why = explain_tensors(digits_bundle, "onnxruntime", "fp32", images, reference, found, answers, {})
    assert why.first is None and why.engine_error > 1e-2
    assert "the fault is made where the runtime fuses or reorders steps" in why.cause


def test_coarse_arithmetic_is_told_from_a_wrong_step(
    digits_bundle: Bundle, images: np.ndarray, reference: Expected
) -> None:
    """An error that grows by a tenth with every tensor has no first step that is wrong."""
    found = engine_tensors(digits_bundle, "onnxruntime", "fp32", images, reference, device="cpu")
    grown = {}
    for step, (name, value) in enumerate(reference.items()):
        worst = value.copy()
        worst.flat[0] += np.float32(1e-2 * 1.1**step * np.ptp(value))
        grown[name] = worst
    coarse = EngineTensors(grown, found.sources, "fp32", "cpu")
    why = explain_tensors(digits_bundle, "openvino", "bf16", images, reference, coarse, grown["logits"], {})
    assert why.name is not None and not why.name.startswith("pixels")
    assert "no step is wrong by itself" in why.cause and "bf16 is too coarse" in why.cause


# --- fp16 and int8 ----------------------------------------------------------------------------------------------------


def emulated(graph: bytes, reference: Expected, images: np.ndarray) -> EngineTensors:
    """The tensors of an FP16 graph as the CPU computes it: rounded weights, float32 in between."""
    model = onnx.load_from_string(graph)
    wanted = tensors._watch(model, reference)
    values = ort_backend.emulate_all(model.SerializeToString(), images)
    return EngineTensors(dict(zip(wanted, values, strict=True)), tensors._sources(model, wanted), "fp16", "cpu")


def test_tensors_that_are_stored_smaller_are_compared_as_they_are(digits_run: Path, images: np.ndarray) -> None:
    """Weights that leave FP16: the export stores tensors times powers of two, and that is no departure."""
    from samdeploy.export.headroom import measure_ranges
    from samdeploy.export.onnx import graph_from_model, serialize
    from samdeploy.export.precision import plan_fp16
    from samdeploy.models import fold
    from samdeploy.run import open_run
    from samdeploy.spec import model_spec

    record = open_run(digits_run)
    spec = model_spec(record.arch, record.gate, record.classes, record.preprocessing)
    model = build_model(record.arch, len(record.classes), record.gate)
    load_weights(model, digits_run / "weights.safetensors")
    model.eval()
    block = model.layer2[1]
    for value in (block.bn1.weight, block.bn1.bias):
        value.data *= 2.0**16
    block.conv2.weight.data /= 2.0**16
    net = fold(model)
    ranges = measure_ranges(serialize(graph_from_model(net, spec, "fp32")), images)
    plan = plan_fp16(net, spec, ranges, images)
    stored = plan.scales.exponents()
    assert stored["layer2.1.conv1"] > 0

    hot = expected_of(model, spec, images)
    found = emulated(serialize(graph_from_model(plan.net, spec, "fp16", plan.fp32)), hot, images)
    bundle = Bundle(Path("nowhere"), spec, (), None, {})  # type: ignore[arg-type]  # nothing is read from it
    why = explain_tensors(bundle, "onnxruntime", "fp16", images, hot, found, found.values["logits"], stored)
    assert why.first is None and max(row.error for row in why.rows) < TOLERANCE["fp16"] / 5
    by_name = {row.name: row for row in why.rows}
    assert by_name["layer2.1.conv1"].bits > 2.9  # as stored; the true values are beyond the end
    assert np.abs(hot["layer2.1.conv1"]).max() > 65504
    # Without the exponents the very same tensors would be accused.
    blind = explain_tensors(bundle, "onnxruntime", "fp16", images, hot, found, found.values["logits"], {})
    assert blind.first is not None

    # And without the rescaling they overflow: FP16 rounds to infinity what lies beyond its end.
    plain = emulated(serialize(graph_from_model(net, spec, "fp32")), hot, images)
    with np.errstate(over="ignore"):
        rounded = {name: value.astype(np.float16).astype(np.float32) for name, value in plain.values.items()}
    burst = EngineTensors(rounded, plain.sources, "fp16", "cuda")
    why = explain_tensors(bundle, "onnxruntime", "fp16", images, hot, burst, rounded["logits"], {})
    assert why.name == "layer2.1.conv1"
    assert "overflow; the network's own values go to" in why.cause and "FP16 ends at 65,504" in why.cause
    assert why.rows[why.first].bits < 0
    check_words_and_json(why)


def expected_of(model, spec, images: np.ndarray) -> Expected:
    import torch

    from samdeploy.models import fold
    from samdeploy.models.graph import Normalize
    from samdeploy.models.tensors import folded_tensors

    found = folded_tensors(fold(model).double(), Normalize(spec.preprocessing).double(), torch.from_numpy(images))
    return {name: value.float().numpy() for name, value in found.items()}


@pytest.mark.gpu
@pytest.mark.skipif(not cuda_devices()[0], reason=f"no CUDA device: {cuda_devices()[1]}")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_honest_engines_on_a_gpu_depart_nowhere(digits_bundle: Bundle, images: np.ndarray, precision: str) -> None:
    why = explain_failure(digits_bundle, "onnxruntime", precision, images, device="cuda")
    assert (why.first, why.device) == (None, "cuda")
    assert len(why.rows) > 70


@pytest.fixture(scope="module")
def int8_bundle(digits_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle with an INT8 graph, all layers quantised, calibrated on its golden pictures."""
    from samdeploy.export.pack import BundleWriter
    from samdeploy.export.qdq import calibrate, quantize

    root = tmp_path_factory.mktemp("int8") / "bundle"
    root.mkdir()
    writer = BundleWriter(root, digits_bundle.spec, digits_bundle.data, {})
    for role in ("weights", "golden_images", "golden_logits"):
        file = digits_bundle.find(role)
        writer.add(role, file.path, digits_bundle.read(file))
    graph = digits_bundle.read(digits_bundle.find("graph", precision="fp32"))
    calibrated = calibrate(graph, digits_bundle.golden()[0])
    writer.add("graph", "model.int8.onnx", quantize(calibrated, "cpu"), precision="int8")
    writer.write_manifest()
    return open_bundle(root)


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


# --- what cannot be explained -----------------------------------------------------------------------------------------


def test_tensorrt_lets_no_tensors_out(digits_bundle: Bundle, images: np.ndarray) -> None:
    with pytest.raises(BackendUnavailable, match=r"does not let its intermediate tensors out.*--backend onnxruntime"):
        explain_failure(digits_bundle, "tensorrt", "fp16", images)


def test_unknown_names_and_unfit_precisions(digits_bundle: Bundle, images: np.ndarray) -> None:
    with pytest.raises(InputError, match="unknown backend 'onnx'; did you mean 'onnxruntime'"):
        explain_failure(digits_bundle, "onnx", "fp32", images)
    with pytest.raises(InputError, match="'bf16' on 'auto' found"):
        explain_failure(digits_bundle, "onnxruntime", "bf16", images)
    with pytest.raises(BackendUnavailable, match="FP16"):
        explain_failure(digits_bundle, "onnxruntime", "fp16", images, device="cpu")


# --- pieces -----------------------------------------------------------------------------------------------------------


def test_worst_pictures() -> None:
    reference = np.zeros((6, 3), np.float32)
    logits = reference.copy()
    logits[4, 1], logits[1, 0], logits[2, 2], logits[5, 0] = np.nan, 3, -7, 0.5
    assert worst_pictures(logits, reference, 3).tolist() == [1, 2, 4]
    assert worst_pictures(logits, reference, 99).tolist() == [0, 1, 2, 3, 4, 5]


def test_error_share() -> None:
    expected = np.array([[-1, 3]], np.float32)
    assert error_share(expected + np.float32(0.5), expected) == 0.125
    assert error_share(np.array([[2, 2]], np.float32), np.array([[4, 4]], np.float32)) == 0.5  # no range: its size
    assert error_share(np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32)) == 0
    assert error_share(np.array([[np.nan, 3]], np.float32), expected) == np.inf
    assert error_share(expected[:, :1], expected) == np.inf


def normalised(pixels: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    shape = (1, 3, 1, 1)
    return ((pixels / 255 - np.reshape(mean, shape)) / np.reshape(std, shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda pixels: pixels, "missing: the engine takes pixels of 0 to 255 as they are"),
        (lambda pixels: pixels / 255, "missing: the engine takes pixels of 0 to 1;"),
        (lambda pixels: normalised(pixels[:, ::-1], IMAGENET_MEAN, IMAGENET_STD), "takes red for blue"),
        (lambda pixels: normalised(pixels, IMAGENET_MEAN[::-1], IMAGENET_STD[::-1]), "takes red for blue"),
        (lambda pixels: normalised(pixels, (0.5,) * 3, (0.5,) * 3), "the engine has mean (0.500, 0.500, 0.500)"),
        (lambda pixels: normalised(pixels**1.5, IMAGENET_MEAN, IMAGENET_STD), "no multiple of them plus a constant"),
    ],
)  # fmt: skip
def test_what_an_engine_does_to_coloured_pixels(make: Callable[[np.ndarray], np.ndarray], words: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8)).astype(np.float32)
    text = normalisation_fault(pixels, np.float32(make(pixels)), Preprocessing(8, 8), 1e-4)
    assert words in text, text


# --- in eval ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first 60 test pictures, for what is not about all of them."""

    def few(bundle: Bundle, data_root: Path | None) -> TestSet:
        found = open_test_set(bundle, data_root)
        return TestSet(found.samples.take(np.arange(60)), found.notes)

    monkeypatch.setattr("samdeploy.evaluate.pipeline.open_test_set", few)


@pytest.mark.usefixtures("short_latency", "few_pictures")
def test_eval_says_why(copy_of_bundle: Path, seal: Seal) -> None:
    faults.edit_graph(copy_of_bundle, one_weight)
    options = EvalOptions(backend="onnxruntime", device="cpu", consistency_s=0, why=True)
    bundle = seal(copy_of_bundle)
    assert "why" not in evaluate_bundle(bundle, replace(options, why=False)).results[0].parts
    report = evaluate_bundle(bundle, options)
    assert not report.passed
    values = json.loads(json_bytes(report.to_json()))["results"][0]["why"]
    assert (values["first"], values["n_images"]) == ("layer2.0.conv2", 4)
    assert "the first tensor of onnxruntime fp32 that departs from the network is layer2.0.conv2" in " ".join(
        table(report).split()
    )


@pytest.mark.usefixtures("short_latency", "few_pictures")
def test_an_engine_that_passes_needs_no_explanation(digits_bundle: Bundle) -> None:
    options = EvalOptions(backend="onnxruntime", device="cpu", consistency_s=0, why=True)
    report = evaluate_bundle(digits_bundle, options)
    assert report.passed and "why" not in report.results[0].parts
