"""Reports made by hand, and what an engine is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from samdeploy.backends.reference import NetworkTensors
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.data.duplicates.copies import TwoLabels
from samdeploy.evaluate.accuracy.against_training import AgainstTraining
from samdeploy.evaluate.accuracy.compare import ClassAccuracy, Comparison, PerImage
from samdeploy.evaluate.accuracy.paired import paired_difference
from samdeploy.evaluate.consistency.checks import Check, Consistency
from samdeploy.evaluate.latency.measure import Latency
from samdeploy.evaluate.result import Report, Result
from samdeploy.evaluate.test_set.distinct import TestImages
from tests.cam_bundle import write_cam_bundle
from tests.certain_digits import write_certain_digits


@pytest.fixture(scope="module", autouse=True)
def _narrow(narrow: None) -> None:
    """All tests of this folder, in this process."""


@pytest.fixture(scope="session")
def digits_run(narrow_run: Path) -> Path:
    return narrow_run


@pytest.fixture(scope="session")
def digits_bundle(narrow_bundle: Bundle) -> Bundle:
    return narrow_bundle


@pytest.fixture(scope="module")
def cam_bundle(narrow: None, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of as few channels, for the tests of this folder alone."""
    return write_cam_bundle(tmp_path_factory.mktemp("maps"))


@pytest.fixture(scope="module")
def digit_files(digits_bundle: Bundle, narrow: None, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    """Of this network, too."""
    return write_certain_digits(digits_bundle, tmp_path_factory.mktemp("images"))


LATENCY = Latency(
    p50_ms=1.5, p90_ms=2.0, p95_ms=2.25, p99_ms=12.125, max_ms=13.0, runs=300, p50_low_ms=1.45, p50_high_ms=1.55,
    drift_percent=1.0, warm_up_runs=30, warm_up_s=0.2, warm_up_settled=True,
)  # fmt: skip


@pytest.fixture(scope="session")
def comparison() -> Callable[..., Comparison]:
    """`comparison(**changes)`: a flawless one, but for the changes."""
    flawless = Comparison(
        top1=97.5,
        reference_top1=97.5,
        top1_agreement=100.0,
        max_difference_of_range=1.5e-6,
        finite=True,
        top5=99.5,
        reference_top5=99.75,
        change=paired_difference(0, 0, 1000, 0.95),
        mcnemar_p=1.0,
        ece=1.25,
        reference_ece=1.5,
        balanced_accuracy=97.375,
        reference_balanced_accuracy=97.375,
        macro_f1=0.974,
        reference_macro_f1=0.974,
        classes=(ClassAccuracy(0, 600, 98.0, 98.0, 0.98, 0.98), ClassAccuracy(1, 400, 96.75, 96.75, 0.97, 0.97)),
        per_image=PerImage(*(np.array([0, 1, 1], np.int32) for _ in range(3))),
    )
    return lambda **changes: replace(flawless, **changes)


CONSISTENT = Consistency((Check("batch sizes", "passed", 1.5e-6, 1e-4, 40, ""),), (), True, 1.25)


@pytest.fixture(scope="session")
def result(comparison: Callable[..., Comparison]) -> Callable[..., Result]:
    """`result(**changes)`: the row of an engine that ran and passed, but for the changes."""
    passed = Result(
        "onnxruntime",
        "fp32",
        "cpu",
        True,
        "",
        comparison(),
        LATENCY,
        passed=True,
        verdict="holds",
        n_images_done=1000,
        date="2026-11-22T12:00:00+00:00",
        machine="a processor",
        versions={"samdeploy": "0.1.0"},
        parts={"consistency": CONSISTENT},
    )
    return lambda **changes: replace(passed, **changes)


@pytest.fixture(scope="session")
def not_run(result: Callable[..., Result]) -> Result:
    """The row of an engine that could not run here."""
    return result(
        backend="tensorrt", precision="fp16", device="", ran=False, reason="no CUDA device: " + "no driver " * 20,
        comparison=None, latency=None, passed=False, verdict=None, n_images_done=0, parts={},
    )  # fmt: skip


@pytest.fixture(scope="session")
def report(result: Callable[..., Result], not_run: Result) -> Callable[..., Report]:
    """`report(**changes)`: one engine passed and one did not run."""
    made = Report(
        bundle="runs/digits/bundle",
        dataset="digits",
        n_images=359,
        test_images=TestImages(359, 359, 0, None, 2, 2, TwoLabels(0)),
        test_set="as at training",
        versions={"samdeploy": "0.1.0"},
        machine="a processor, 2 cores, Linux x86_64",
        results=(result(), not_run),
        named=False,
        margin=0.5,
        confidence=0.95,
        class_names=("cat", "dog"),
        manifest_sha256="a" * 64,
        test_fingerprint="b" * 64,
        against_training=AgainstTraining(True, True, 97.5, 359, 97.5, 359),
    )
    return lambda **changes: replace(made, **changes)


@pytest.fixture(scope="session")
def images(digits_bundle: Bundle) -> np.ndarray:
    """Four of the golden images, uint8 [4, H, W, 3]."""
    return digits_bundle.golden()[0][:4]


@pytest.fixture(scope="module")
def reference(narrow: None, digits_bundle: Bundle, images: np.ndarray) -> NetworkTensors:
    """Every tensor of the trained network on `images`."""
    from samdeploy.backends.reference import reference_tensors

    return reference_tensors(digits_bundle, images)


@pytest.fixture(scope="session")
def int8_bundle(digits_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle with an INT8 graph, all layers quantised, calibrated on its golden images."""
    from samdeploy.export.int8.qdq import calibrate, quantize
    from samdeploy.export.pack import BundleWriter

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
