"""Reports made by hand, and shorter latency runs where latency is not the question."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from samdeploy.evaluate.accuracy import Comparison
from samdeploy.evaluate.latency import Latency
from samdeploy.evaluate.report import Report, Result


@pytest.fixture(scope="session")
def comparison() -> Callable[..., Comparison]:
    """`comparison(**changes)`: a flawless one, but for the changes."""
    flawless = Comparison(
        top1=97.5,
        reference_top1=97.5,
        top1_agreement=100.0,
        max_abs_logit_difference=1.5e-5,
        logit_range=20.0,
        finite=True,
    )
    return lambda **changes: replace(flawless, **changes)


@pytest.fixture(scope="session")
def result(comparison: Callable[..., Comparison]) -> Callable[..., Result]:
    """`result(**changes)`: the row of an engine that ran and passed, but for the changes."""
    passed = Result(
        "onnxruntime", "fp32", "cpu", True, "", comparison(), Latency(1.5, 2.25, 12.125, runs=300), passed=True
    )
    return lambda **changes: replace(passed, **changes)


@pytest.fixture(scope="session")
def not_run(result: Callable[..., Result]) -> Result:
    """The row of an engine that could not run here."""
    return result(
        backend="tensorrt", precision="fp16", device="", ran=False, reason="no CUDA device: " + "no driver " * 20,
        comparison=None, latency=None, passed=False,
    )  # fmt: skip


@pytest.fixture(scope="session")
def report(result: Callable[..., Result], not_run: Result) -> Callable[..., Report]:
    """`report(**changes)`: one engine passed and one did not run."""
    made = Report(
        bundle="runs/digits/bundle",
        dataset="digits",
        n_images=359,
        test_set="as at training",
        versions={"samdeploy": "0.1.0"},
        machine="a processor, 2 cores, Linux x86_64",
        results=(result(), not_run),
        passed=True,
    )
    return lambda **changes: replace(made, **changes)


@pytest.fixture
def short_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty timed runs instead of three hundred."""
    monkeypatch.setattr("samdeploy.evaluate.latency.RUNS", 30)
    monkeypatch.setattr("samdeploy.evaluate.latency.WARM_UP_RUNS", 2)
