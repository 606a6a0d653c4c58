"""A small bundle with an evaluation beside it: one engine that passed, one that lost too much, one that never ran."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from samdeploy.bundle.names import MANIFEST
from samdeploy.data.duplicates.copies import TwoLabels
from samdeploy.data.duplicates.leaks import LeakReport, Overlap
from samdeploy.evaluate.accuracy.compare import compare
from samdeploy.evaluate.latency.measure import Latency
from samdeploy.evaluate.result import Report, Result
from samdeploy.evaluate.test_set.distinct import TestImages
from samdeploy.files import json_bytes
from tests.bundle.written import SPEC, write_bundle

LATENCY = Latency(
    p50_ms=1.5, p90_ms=2.0, p95_ms=2.25, p99_ms=12.125, max_ms=13.0, runs=300, p50_low_ms=1.45, p50_high_ms=1.55,
    drift_percent=1.0, warm_up_runs=30, warm_up_s=0.2, warm_up_settled=True, waited_percent=0.5,
)  # fmt: skip


def evaluation(manifest_sha256: str) -> Report:
    """Of 200 images: the reference is right about 190, the second engine about 175."""
    labels = np.arange(200) % 2
    right = np.eye(2, dtype=np.float32)[labels]
    reference, worse = right.copy(), right.copy()
    reference[:10], worse[:25] = 1 - right[:10], 1 - right[:25]
    first = Result(
        "onnxruntime", "fp32", "cpu", True, "", compare(reference, reference, labels), LATENCY, passed=True,
        verdict="holds", n_images_done=200, date="2026-11-22T12:00:00+00:00", machine="a processor",
    )  # fmt: skip
    second = replace(
        first, precision="int8", comparison=compare(worse, reference, labels), passed=False, verdict="fails",
        reason="top-1 is 7.50 points lower", latency=replace(LATENCY, p50_ms=0.5, p90_ms=9.0),
    )  # fmt: skip
    third = Result("tensorrt", "fp16", "", False, "no CUDA device", None, None, passed=False)
    return Report(
        bundle="bundle", dataset="animals", n_images=200, test_set="as at training", versions={}, machine="a processor",
        test_images=TestImages(200, 200, 0, None, 2, 2, TwoLabels(0)), results=(first, second, third), named=False,
        margin=0.5, confidence=0.95, class_names=SPEC.classes, manifest_sha256=manifest_sha256,
        test_fingerprint="b" * 64, left_out=("not judged: graphs/fp16.onnx, which no engine ran",),
        leaks=LeakReport((Overlap("test", "train", 200, 3, 1, ()),)),
    )  # fmt: skip


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    """The folder of a bundle that was evaluated, free to be damaged."""
    root = write_bundle(tmp_path / "judged")
    write_evaluation(root)
    return root


def write_evaluation(root: Path) -> None:
    """Write eval.json for the manifest as it is now."""
    sha256 = hashlib.sha256((root / MANIFEST).read_bytes()).hexdigest()
    (root / "eval.json").write_bytes(json_bytes(evaluation(sha256).to_json()))
