"""The verdict on a real bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from samdeploy.backends import open_session
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.data import open_dataset
from samdeploy.evaluate import EvalOptions, Report, evaluate_bundle
from samdeploy.report.text.evaluation import evaluation_tables
from tests.marks import without_gpu

pytestmark = pytest.mark.usefixtures("short_latency")

CPU_ENGINES = ("onnxruntime", "openvino")


@pytest.fixture(scope="module")
def report(digits_bundle: Bundle) -> Report:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("samdeploy.evaluate.latency.measure.RUNS", 30)
        return evaluate_bundle(digits_bundle, EvalOptions(device="auto"))


def right_answers(bundle: Bundle) -> tuple[int, int]:
    """Hits and images of the test split, counted without samdeploy's evaluation, reader or splits."""
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    # The test split is known by its images: those that are neither in train nor in val.
    dataset = open_dataset("digits", val_fraction=bundle.data.val_fraction, seed=bundle.data.split_seed)
    seen = set()
    for samples in (dataset.train, dataset.val):
        seen |= {samples.load(index).tobytes() for index in range(len(samples))}
    examples, labels = [], []
    for values, label in zip(data.images, data.target, strict=True):
        grey = np.floor(values * 255 / 16 + 0.5).astype(np.uint8)
        image = np.repeat(grey[:, :, None], 3, axis=2)
        if image.tobytes() not in seen:
            tall = Image.fromarray(image).resize((8, 32), Image.Resampling.BILINEAR)
            examples.append(np.asarray(tall.resize((32, 32), Image.Resampling.BILINEAR)))
            labels.append(label)
    with open_session(bundle, "pytorch", device="cpu") as session:
        logits = session.run(np.stack(examples))
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
        assert 0 < row.comparison.max_difference_of_range < 1e-5
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
    found = report.against_training
    assert found is not None and found.same_labels and not found.fault and not found.remark
    assert (found.top1, found.measured_top1, found.measured_images) == (record["test_top1"], record["test_top1"], 359)


def test_pytorch_against_itself(digits_bundle: Bundle) -> None:
    report = evaluate_bundle(digits_bundle, EvalOptions(backend="pytorch", device="cpu"))
    (row,) = report.results
    assert report.passed and row.comparison is not None
    assert row.comparison.max_difference_of_range == 0.0


def test_a_bundle_of_earlier_weights_says_so(copy_of_bundle: Path, digits_run: Path) -> None:
    shutil.copy(digits_run / "run.json", copy_of_bundle.parent)
    (copy_of_bundle.parent / "weights.safetensors").write_bytes(b"of a later epoch")
    report = evaluate_bundle(open_bundle(copy_of_bundle), EvalOptions(backend="onnxruntime", device="cpu"))
    assert not report.passed
    assert report.faults[0].startswith(f"the run {copy_of_bundle.parent} holds other weights than this bundle")


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


def test_what_was_not_judged_is_named(digits_bundle: Bundle) -> None:
    report = evaluate_bundle(digits_bundle, EvalOptions(backend="onnxruntime", consistency_s=0))
    assert report.left_out == ("not asked for: openvino fp32, tensorrt fp16",)
    assert "not asked for: openvino fp32, tensorrt fp16" in evaluation_tables(report)
    report = evaluate_bundle(digits_bundle, EvalOptions(device="cpu", consistency_s=0))
    assert report.left_out == ("not judged: model.fp16.onnx, which no engine ran",)
