"""The verdict on a real bundle, and on bundles with planted faults that a gate must find."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from samdeploy.backends import open_session
from samdeploy.backends.cuda import cuda_devices
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.data import open_dataset
from samdeploy.errors import BackendUnavailable, BundleError, InputError
from samdeploy.evaluate import EvalOptions, Report, evaluate_bundle
from samdeploy.evaluate.pipeline import _engines
from samdeploy.manifest import MANIFEST

pytestmark = pytest.mark.usefixtures("short_latency")

Seal = Callable[[Path], Bundle]
CPU_ENGINES = ("onnxruntime", "openvino")
without_gpu = pytest.mark.skipif(cuda_devices()[0] > 0, reason="this machine has a CUDA device")


@pytest.fixture(scope="module")
def report(digits_bundle: Bundle) -> Report:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("samdeploy.evaluate.latency.RUNS", 30)
        return evaluate_bundle(digits_bundle, EvalOptions(device="auto"))


def right_answers(bundle: Bundle) -> tuple[int, int]:
    """Hits and pictures of the test split, counted without samdeploy's evaluation, reader or splits."""
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    # The test split is known by its pictures: those that are neither in train nor in val.
    dataset = open_dataset("digits", val_fraction=bundle.data.val_fraction, seed=bundle.data.split_seed)
    seen = set()
    for samples in (dataset.train, dataset.val):
        seen |= {samples.load(index).tobytes() for index in range(len(samples))}
    pictures, labels = [], []
    for values, label in zip(data.images, data.target, strict=True):
        grey = np.floor(values * 255 / 16 + 0.5).astype(np.uint8)
        picture = np.repeat(grey[:, :, None], 3, axis=2)
        if picture.tobytes() not in seen:
            tall = Image.fromarray(picture).resize((8, 32), Image.Resampling.BILINEAR)
            pictures.append(np.asarray(tall.resize((32, 32), Image.Resampling.BILINEAR)))
            labels.append(label)
    with open_session(bundle, "pytorch", device="cpu") as session:
        logits = session.run(np.stack(pictures))
    hits = sum(int(row.argmax() == label) for row, label in zip(logits, labels, strict=True))
    return hits, len(labels)


def test_a_good_bundle_passes(report: Report, digits_bundle: Bundle) -> None:
    assert report.passed
    assert (report.n_images, report.dataset, report.test_set) == (359, "digits", "as at training")
    assert [(row.backend, row.precision) for row in report.results[:2]] == [(name, "fp32") for name in CPU_ENGINES]
    for row in report.results[:2]:
        assert (row.ran, row.passed, row.reason) == (True, True, "")
        assert row.comparison is not None and row.latency is not None
        assert row.comparison.top1_agreement == 100.0
        assert row.comparison.top1 == row.comparison.reference_top1 > 90
        assert 0 < row.comparison.max_abs_logit_difference < 1e-4 * row.comparison.logit_range
        assert 0 < row.latency.p50_ms <= row.latency.p95_ms <= row.latency.p99_ms
        assert (row.verdict, row.n_images_done, row.n_needed) == ("holds", 359, None)
        assert (row.comparison.change.lost, row.comparison.change.gained) == (0, 0)
        assert row.comparison.change.high == -row.comparison.change.low == pytest.approx(1.213, abs=5e-4)
        assert row.comparison.top5 == row.comparison.reference_top5 > 99
        assert row.comparison.ece == pytest.approx(row.comparison.reference_ece, abs=0.01)
        assert sum(found.images for found in row.comparison.classes) == 359
        assert row.date.startswith("20") and row.date.endswith("+00:00")
        assert row.machine == report.machine
    assert {"samdeploy", "python", "torch", "onnxruntime", "openvino", "numpy"} <= set(report.versions)
    assert report.test_fingerprint == digits_bundle.data.fingerprints["test"]


def test_top1_equals_an_independent_count(report: Report, digits_bundle: Bundle) -> None:
    hits, images = right_answers(digits_bundle)
    assert images == 359
    assert [row.comparison.reference_top1 for row in report.results if row.comparison] == [100 * hits / images] * sum(
        row.ran for row in report.results
    )


def test_top1_equals_the_one_that_training_measured(report: Report, digits_run: Path) -> None:
    record = json.loads((digits_run / "run.json").read_text())
    assert report.results[0].comparison is not None
    assert report.results[0].comparison.reference_top1 == record["test_top1"]


@without_gpu
def test_an_engine_that_cannot_run_never_passes(report: Report, digits_bundle: Bundle) -> None:
    row = report.results[-1]
    assert (row.backend, row.ran, row.passed, row.device) == ("tensorrt", False, False, "")
    assert row.comparison is None and row.latency is None
    assert row.reason
    # With "all" it does not spoil the verdict on the others; asked for by name, it is the verdict.
    assert report.passed
    named = evaluate_bundle(digits_bundle, EvalOptions(backend="tensorrt"))
    assert not named.passed
    assert [row.ran for row in named.results] == [False]


def test_nothing_that_ran_is_not_passed(digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(bundle: Bundle, backend: str, **options: object) -> object:
        if backend == "pytorch":
            return open_session(bundle, backend, device="cpu")
        raise BackendUnavailable(f"{backend} is not installed")

    monkeypatch.setattr("samdeploy.evaluate.pipeline.open_session", refuse)
    report = evaluate_bundle(digits_bundle, EvalOptions())
    assert {row.ran for row in report.results} == {False}
    assert not report.passed


@without_gpu
def test_int8_in_the_bundle_is_not_passed_over(copy_of_bundle: Path, seal: Seal) -> None:
    """An INT8 graph that computes in FP32 would pass any comparison of answers; no option asks for it here."""
    manifest = json.loads((copy_of_bundle / MANIFEST).read_text())
    graph = next(file for file in manifest["files"] if file["role"] == "graph" and file["precision"] == "fp32")
    manifest["files"].append({**graph, "path": "model.int8.onnx", "precision": "int8"})
    shutil.copy(copy_of_bundle / graph["path"], copy_of_bundle / "model.int8.onnx")
    (copy_of_bundle / MANIFEST).write_text(json.dumps(manifest))
    report = evaluate_bundle(seal(copy_of_bundle), EvalOptions(device="cpu"))
    rows = {(row.backend, row.precision): row for row in report.results}
    assert {("onnxruntime", "int8"), ("openvino", "int8")} < set(rows)
    # ONNX Runtime shows the types of its kernels alone, for which the CPU may be to blame; OpenVINO those of the graph.
    assert not rows["onnxruntime", "int8"].passed
    assert rows["onnxruntime", "int8"].reason.startswith("ONNX Runtime computes too few convolutions in int8: ")
    graph = rows["openvino", "int8"]
    assert (graph.ran, graph.passed, graph.comparison) == (True, False, None)
    assert graph.reason == "the int8 graph holds no convolution in int8; make it again: samdeploy export"
    assert rows["onnxruntime", "fp32"].passed and rows["openvino", "fp32"].passed
    assert not report.passed


def test_a_plan_that_was_never_built_is_spoken_of_only_by_name(digits_bundle: Bundle) -> None:
    def asked(backend: str) -> list[tuple[str, str]]:
        return list(_engines(digits_bundle, EvalOptions(backend=backend, precision="int8")))

    assert asked("all") == [("onnxruntime", "int8"), ("openvino", "int8")]
    assert asked("tensorrt") == [("tensorrt", "int8")]


def test_a_bundle_of_earlier_weights_says_so(copy_of_bundle: Path, digits_run: Path) -> None:
    shutil.copy(digits_run / "run.json", copy_of_bundle.parent)
    (copy_of_bundle.parent / "weights.safetensors").write_bytes(b"of a later epoch")
    report = evaluate_bundle(open_bundle(copy_of_bundle), EvalOptions(backend="onnxruntime", device="cpu"))
    assert report.notes[0].startswith(f"the run {copy_of_bundle.parent} holds other weights than this bundle")


def test_each_engine_that_was_named_must_run(digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two TensorRT engines, of which one runs here and is right: asked for by name, that is not enough."""

    def one_of_two(bundle: Bundle, backend: str, *, precision: str | None = None, **options: object) -> object:
        if precision == "fp16":
            raise BackendUnavailable("built for another GPU")
        return open_session(bundle, "pytorch", device="cpu")

    monkeypatch.setattr("samdeploy.evaluate.pipeline.open_session", one_of_two)
    monkeypatch.setattr(
        "samdeploy.evaluate.pipeline._engines", lambda *_: iter([("tensorrt", "fp32"), ("tensorrt", "fp16")])
    )
    report = evaluate_bundle(digits_bundle, EvalOptions(backend="tensorrt"))
    assert [row.passed for row in report.results] == [True, False]
    assert not report.passed


def test_pytorch_against_itself(digits_bundle: Bundle) -> None:
    report = evaluate_bundle(digits_bundle, EvalOptions(backend="pytorch", device="cpu"))
    (row,) = report.results
    assert report.passed and row.comparison is not None
    assert row.comparison.max_abs_logit_difference == 0.0


def edit_graph(root: Path, change: Callable[[dict[str, onnx.TensorProto]], None]) -> None:
    """Change weights of the FP32 graph in place."""
    path = root / "model.fp32.onnx"
    model = onnx.load(str(path))
    change({weight.name: weight for weight in model.graph.initializer})
    path.write_bytes(model.SerializeToString())


def rewrite(weight: onnx.TensorProto, array: np.ndarray) -> None:
    weight.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array), weight.name))


def swap_classes(weights: dict[str, onnx.TensorProto]) -> None:
    for name in ("head.weight", "head.bias"):
        array = onnx.numpy_helper.to_array(weights[name]).copy()
        array[[3, 8]] = array[[8, 3]]
        rewrite(weights[name], array)


def bgr(weights: dict[str, onnx.TensorProto]) -> None:
    """The network for pictures whose channels come as blue, green, red."""
    for name in ("pixels.scale", "pixels.shift"):
        rewrite(weights[name], onnx.numpy_helper.to_array(weights[name])[:, ::-1])
    rewrite(weights["stem.weight"], onnx.numpy_helper.to_array(weights["stem.weight"])[:, ::-1])


def wrong_normalisation(weights: dict[str, onnx.TensorProto]) -> None:
    """A mean and a standard deviation of one half, as many exporters assume."""
    rewrite(weights["pixels.scale"], np.full((1, 3, 1, 1), 2 / 255, np.float32))
    rewrite(weights["pixels.shift"], np.full((1, 3, 1, 1), -1, np.float32))


def noise(weights: dict[str, onnx.TensorProto]) -> None:
    """A thousandth of the head's weights: top-1 hardly notices, the logits do."""
    array = onnx.numpy_helper.to_array(weights["head.weight"])
    rewrite(weights["head.weight"], array * np.float32(1.001))


def not_a_number(weights: dict[str, onnx.TensorProto]) -> None:
    array = onnx.numpy_helper.to_array(weights["head.bias"]).copy()
    array[9] = np.nan
    rewrite(weights["head.bias"], array)


@pytest.mark.parametrize("fault", [swap_classes, wrong_normalisation, noise, not_a_number])
def test_a_planted_fault_is_found(copy_of_bundle: Path, seal: Seal, fault: Callable[..., None]) -> None:
    edit_graph(copy_of_bundle, fault)
    report = evaluate_bundle(seal(copy_of_bundle), EvalOptions(device="cpu"))
    assert not report.passed
    rows = {row.backend: row for row in report.results}
    for backend in CPU_ENGINES:
        row = rows[backend]
        assert (row.ran, row.passed) == (True, False), backend
        assert row.comparison is not None
        assert "logits are not finite" in row.reason if fault is not_a_number else "logits differ by" in row.reason
        if fault is swap_classes:
            assert row.comparison.top1 < row.comparison.reference_top1 - 10
            assert "agreement" in row.reason
        if fault is noise:
            assert row.comparison.top1_agreement == 100.0
            assert "agreement" not in row.reason


def test_channels_in_another_order_are_found(copy_of_bundle: Path, seal: Seal, tmp_path: Path) -> None:
    """On grey digits blue equals red, so the test pictures are coloured ones of a folder."""
    from PIL import Image

    edit_graph(copy_of_bundle, bgr)
    pictures = tmp_path / "coloured"
    random = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 2), ("test", 4)):
        for label in "0123456789":
            folder = pictures / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    manifest = json.loads((copy_of_bundle / MANIFEST).read_text())
    manifest["data"]["name"] = "folder"
    (copy_of_bundle / MANIFEST).write_text(json.dumps(manifest))

    report = evaluate_bundle(seal(copy_of_bundle), EvalOptions(device="cpu", data_root=pictures))
    assert report.n_images == 40
    assert report.test_set == "differs from the one at training"
    assert not report.passed
    assert [row.passed for row in report.results[:2]] == [False, False]
    # The same pictures through the honest graph pass: it was the order, and not the pictures.
    edit_graph(copy_of_bundle, bgr)
    assert evaluate_bundle(seal(copy_of_bundle), EvalOptions(device="cpu", data_root=pictures)).passed


def test_a_changed_file_is_found_before_anything_runs(copy_of_bundle: Path) -> None:
    path = copy_of_bundle / "model.fp16.onnx"  # that no engine of this evaluation would open
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"'model\.fp16\.onnx' has SHA-256"):
        evaluate_bundle(open_bundle(copy_of_bundle), EvalOptions(backend="onnxruntime"))


def test_pictures_of_another_data_set_are_refused(digits_bundle: Bundle) -> None:
    spec = dataclasses.replace(digits_bundle.spec, classes=tuple("abcdefghij"))
    with pytest.raises(InputError) as caught:
        evaluate_bundle(dataclasses.replace(digits_bundle, spec=spec), EvalOptions(backend="pytorch"))
    assert str(caught.value).startswith(
        "data set 'digits' has 10 classes, the bundle was trained on 10: the bundle does not know '0', '1', '2', '3', "
        "'4' and 5 more; the data set lacks 'a', 'b', 'c', 'd', 'e' and 5 more. These are not its pictures"
    )


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ("0123456798", "the same in another order: class 8 is '8', '9' expected."),
        ("012345678", "has 10 classes, the bundle was trained on 9: the bundle does not know '9'."),
        ("0123456789a", "has 10 classes, the bundle was trained on 11: the data set lacks 'a'."),
        ("012345678b", "trained on 10: the bundle does not know '9'; the data set lacks 'b'."),
    ],
)
def test_classes_that_are_extra_or_missing_are_named(digits_bundle: Bundle, classes: str, said: str) -> None:
    spec = dataclasses.replace(digits_bundle.spec, classes=tuple(classes))
    with pytest.raises(InputError) as caught:
        evaluate_bundle(dataclasses.replace(digits_bundle, spec=spec), EvalOptions(backend="pytorch"))
    assert said in str(caught.value)


def test_other_test_pictures_are_said(digits_bundle: Bundle) -> None:
    for fingerprints, said in (
        ({"test": "0" * 64}, "differs from the one at training"),
        ({}, "not recorded at training"),
    ):
        data = dataclasses.replace(digits_bundle.data, fingerprints=fingerprints)
        report = evaluate_bundle(dataclasses.replace(digits_bundle, data=data), EvalOptions(backend="onnxruntime"))
        assert report.test_set == said


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"backend": "onnx"}, "unknown backend 'onnx'; did you mean 'onnxruntime'? Valid: pytorch,"),
        ({"precision": "half"}, "unknown precision 'half'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"margin": 0.0}, "margin 0 found, percentage points above 0 and below 100 expected"),
        ({"margin": -1.0}, "margin -1 found"),
        ({"margin": 100.0}, "margin 100 found"),
        ({"margin": math.nan}, "margin nan found"),
        ({"confidence": 95.0}, "confidence 95 found, a share from 0.5 and below 1 expected (for 95 %: 0.95)"),
        ({"confidence": 1.0}, "confidence 1 found, a share from 0.5 and below 1 expected"),
        ({"confidence": 0.4}, "confidence 0.4 found"),
        ({"confidence": math.nan}, "confidence nan found"),
    ],
)
def test_mistakes_are_refused_before_anything_is_opened(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as caught:
        EvalOptions(**options)
    assert text in str(caught.value)


def test_a_device_that_one_engine_never_has(digits_bundle: Bundle) -> None:
    """TensorRT never runs on a CPU: one row of "all", and a mistake where it was named."""
    report = evaluate_bundle(digits_bundle, EvalOptions(device="cpu"))
    assert report.passed
    assert report.results[-1].reason == "backend 'tensorrt' runs on cuda; device 'cpu' found"
    assert not report.results[-1].passed
    with pytest.raises(InputError, match="backend 'tensorrt' runs on cuda"):
        evaluate_bundle(digits_bundle, EvalOptions(backend="tensorrt", device="cpu"))
