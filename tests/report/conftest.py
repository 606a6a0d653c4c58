"""An evaluation made by hand in which everything happens, on a bundle whose images can be had; and a folder of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jinja2", reason="pip install 'samdeploy[report]'")

from samdeploy.bundle import Bundle, open_bundle
from samdeploy.bundle.answers import Rejection
from samdeploy.data import open_dataset
from samdeploy.data.duplicates.copies import TwoLabels
from samdeploy.data.duplicates.leaks import LeakReport, Overlap, SharedImage
from samdeploy.evaluate.accuracy.compare import Comparison, compare
from samdeploy.evaluate.accuracy.facts import image_facts
from samdeploy.evaluate.accuracy.gate import judge
from samdeploy.evaluate.accuracy.probabilities import ProbabilityFigures, probability_figures
from samdeploy.evaluate.consistency.checks import Check, Consistency
from samdeploy.evaluate.consistency.probes import ProbeAnswers
from samdeploy.evaluate.latency.measure import Latency
from samdeploy.evaluate.result import NotMeasured, Report, Result
from samdeploy.evaluate.test_set.distinct import TestImages
from samdeploy.evaluate.why.explain import Why
from samdeploy.evaluate.why.tensors import TensorRow
from samdeploy.report.write import write_report

LATENCY = Latency(
    p50_ms=1.5, p90_ms=2.0, p95_ms=2.25, p99_ms=12.125, max_ms=13.0, runs=300, p50_low_ms=1.45, p50_high_ms=1.55,
    drift_percent=1.0, warm_up_runs=30, warm_up_s=0.2, warm_up_settled=True, waited_percent=0.5,
)  # fmt: skip
CONSISTENT = Consistency(
    (
        Check("batch sizes", "passed", 1.5e-6, 1e-4, 40, ""),
        Check("two threads", "not finished", 0.0, 1e-4, 3, "time was up after 3 runs"),
    ),
    (1, 2, 3, 24),
    True,
    1.25,
)
INCONSISTENT = replace(
    CONSISTENT, checks=(Check("batch sizes", "failed", np.inf, 1e-1, 40, "wrong at batch size 7, in every row"),)
)

PROBES = ProbeAnswers(64, ("white",), 1.5e-6, "pure red", 1e-4)
WRONG_PROBES = ProbeAnswers(64, ("white", "black"), 0.25, "pure red", 0.1, ("pure red", "pure blue"), "BGR")
WHY = Why(
    "openvino", "bf16", "cpu", 8, 2e-2, np.inf,
    (
        TensorRow("pixels", 0.0, (), 0.0, 0, 3, 0, 255.0),
        TensorRow("layer2.0.conv2", np.inf, ("pixels",), 0.0, 3, 128, 5, 0.0),
    ),
    1,
    "layer2.0.conv2 overflows",
)  # fmt: skip


@pytest.fixture(scope="session")
def logits() -> Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """`logits(labels, lost, gained, other, classes=10)`: of an engine and of the reference, and the labels.

    The reference is wrong about the ten images from 200 on.  The engine loses the first images, gains the first of
    the ten, and is wrong in another way about the next of them.
    """

    def make(
        labels: np.ndarray, *, lost: int, gained: int, other: int, classes: int = 10
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        right, wrong, third = (10 * np.eye(classes, dtype=np.float32)[(labels + step) % classes] for step in range(3))
        reference = right.copy()
        reference[200:210] = wrong[200:210]
        engine, gain, rest = reference.copy(), slice(200, 200 + gained), slice(200 + gained, 200 + gained + other)
        engine[:lost], engine[gain], engine[rest] = wrong[:lost], right[gain], third[rest]
        return engine, reference, labels

    return make


@pytest.fixture(scope="session")
def everything(digits_bundle: Bundle, logits: Callable[..., Any]) -> Report:
    """One engine of each fate, on the digits' own test split: holds, cannot tell, fails, stopped, not run."""
    data = digits_bundle.data
    test = open_dataset(data.name, val_fraction=data.val_fraction, seed=data.split_seed).test
    row = Result(
        "onnxruntime", "fp32", "cpu", True, "", None, LATENCY, passed=True, verdict="holds", n_images_done=len(test),
        date="2026-11-22T12:00:00+00:00", machine="a processor", versions={"samdeploy": "0.1.0"},
        parts={"probes": PROBES, "consistency": CONSISTENT},
    )  # fmt: skip

    def found(**flips: int) -> Comparison:
        comparison: Comparison = compare(*logits(test.labels, **flips))
        return comparison

    def probabilities(threshold: float, **flips: int) -> ProbabilityFigures:
        engine, _, labels = logits(test.labels, **flips)
        unsure = (engine / np.linspace(1, 9, len(engine))[:, None]).astype(np.float32)
        rejection = Rejection(threshold, 2.0, 1.9, 80.0, 300)
        bundle = replace(digits_bundle, calibration=None, rejection=rejection)
        return probability_figures(image_facts(unsure, unsure, labels), bundle, 0.95)

    few = found(lost=2, gained=1, other=1)
    waiting = judge(few, "int8")
    many = found(lost=100, gained=1, other=1)
    noisy = replace(LATENCY, p90_ms=9.0)
    rows = (
        replace(
            row, comparison=found(lost=0, gained=0, other=0),
            parts={**row.parts, "probabilities": probabilities(0.42, lost=0, gained=0, other=0)},
        ),
        replace(
            row, backend="openvino", precision="int8", comparison=few, latency=noisy, passed=False,
            verdict=waiting.verdict, reason="; ".join(waiting.reasons), n_needed=waiting.n_needed,
            parts={"probes": NotMeasured("no INT8 ranges")},
        ),
        replace(
            row, backend="openvino", precision="bf16", comparison=many, passed=False, verdict="fails",
            reason="top-1 is 27.58 points lower",
            parts={
                "probes": WRONG_PROBES, "consistency": INCONSISTENT, "why": WHY,
                "probabilities": probabilities(0.1, lost=100, gained=1, other=1),
            },
        ),
        replace(
            row, backend="tensorrt", precision="fp32", device="cuda", comparison=None, latency=None, passed=False,
            verdict=None, reason="stopped after 64 of 359 images: the GPU fell off the bus", n_images_done=64,
        ),
        replace(
            row, backend="tensorrt", precision="fp16", device="", ran=False, reason="no CUDA device: no driver",
            comparison=None, latency=None, passed=False, verdict=None, n_images_done=0, parts={},
        ),
    )  # fmt: skip
    example = SharedImage("digits[3]", "digits[700]", 0, is_exact=True, is_same_file=False)
    leaks = LeakReport((Overlap("test", "train", 359, 0, 0, ()), Overlap("test", "val", 359, 3, 1, (example,))))
    return Report(
        bundle=str(digits_bundle.root),
        dataset="digits",
        n_images=len(test),
        test_images=TestImages(len(test), len(test), 0, None, 10, 10, TwoLabels(0)),
        test_set="as at training",
        versions={"samdeploy": "0.1.0"},
        machine="a processor, 2 cores, Linux x86_64",
        results=rows,
        named=False,
        margin=0.5,
        confidence=0.95,
        class_names=digits_bundle.spec.classes,
        manifest_sha256="a" * 64,
        test_fingerprint="b" * 64,
        leaks=leaks,
        left_out=("not judged: model.fp16.onnx, which no engine ran",),
    )


BENCH = {
    "bundle": "bundle",
    "date": "2026-11-22T12:00:00Z",
    "machine": "a processor",
    "engines": [
        {
            "backend": backend,
            "precision": "fp32",
            "device": "cpu",
            "batches": [
                {"batch": size, "p50_ms": size / rate, "p90_ms": 9.0, "runs": 9, "images_per_s": 1000 * rate}
                for size in (1, 2, 4)
            ],
        }
        for backend, rate in (("onnxruntime", 0.25), ("openvino", 0.5))
    ],
    "against": [],
}
AGAINST = {
    **BENCH,
    "engines": [],
    "against": [
        {
            "batch": 1,
            "rounds": 21,
            "base": "pytorch eager",
            "rows": [
                {"engine": "samdeploy openvino fp32", "ours": True, "ran": True, "reason": "", "times_base": 2.5,
                 "times_base_p10": 2.0, "times_base_p90": 3.0},
                {"engine": "pytorch eager", "ours": False, "ran": True, "reason": "", "times_base": 1.0,
                 "times_base_p10": 1.0, "times_base_p90": 1.0},
                {"engine": "trtexec", "ours": False, "ran": False, "reason": "not installed", "times_base": None,
                 "times_base_p10": None, "times_base_p90": None},
            ],
        }
    ],
}  # fmt: skip


@pytest.fixture
def with_bench(copy_of_bundle: Path) -> Bundle:
    """A copy of the bundle with what `samdeploy bench` would leave."""
    (copy_of_bundle / "bench.json").write_text(json.dumps(BENCH))
    (copy_of_bundle / "bench-against.json").write_text(json.dumps(AGAINST))
    return open_bundle(copy_of_bundle)


@pytest.fixture(scope="session")
def written(everything: Report, digits_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report of `everything`.  Do not write into it."""
    folder = tmp_path_factory.mktemp("report")
    write_report(folder, digits_bundle, everything, data_root=None, command="samdeploy eval --report out")
    return folder
