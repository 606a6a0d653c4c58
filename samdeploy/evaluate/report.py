"""The result of an evaluation, as JSON and as a table.

DESIGN.md documents the JSON.  Percentages are 0 to 100, times milliseconds, and what was not measured is null.
"""

from __future__ import annotations

import dataclasses
import textwrap
from dataclasses import dataclass
from typing import Any

from samdeploy.evaluate.accuracy import Comparison
from samdeploy.evaluate.latency import Latency

# What `Report.test_set` says where the pictures are the very ones that training measured.
AS_AT_TRAINING = "as at training"

# Beside the manifest, which does not list it: no runtime reads it.
EVAL_FILE = "eval.json"


@dataclass(frozen=True, slots=True)
class Result:
    """One engine's row.

    Attributes:
        backend, precision, device: which engine, and where it ran; device is "" if it did not run.
        ran: whether it could run here.
        reason: why it could not, or which promises it broke; "" if all is well.
        comparison, latency: None if it did not run.
        passed: the gate held.  Never True for an engine that did not run.
    """

    backend: str
    precision: str
    device: str
    ran: bool
    reason: str
    comparison: Comparison | None
    latency: Latency | None
    passed: bool

    def to_json(self) -> dict[str, Any]:
        """The row as documented in DESIGN.md."""
        found = dataclasses.asdict(self.comparison) if self.comparison else {}
        times = dataclasses.asdict(self.latency) if self.latency else {}
        # JSON has no infinity.
        difference = found.get("max_abs_logit_difference") if found.get("finite") else None
        return {
            "backend": self.backend,
            "precision": self.precision,
            "device": self.device,
            "ran": self.ran,
            "reason": self.reason,
            "top1": found.get("top1"),
            "reference_top1": found.get("reference_top1"),
            "top1_agreement": found.get("top1_agreement"),
            "max_abs_logit_difference": difference,
            "logit_range": found.get("logit_range"),
            "p50_ms": times.get("p50_ms"),
            "p95_ms": times.get("p95_ms"),
            "p99_ms": times.get("p99_ms"),
            "latency_runs": times.get("runs"),
            "passed": self.passed,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """All rows and the verdict.

    Attributes:
        bundle: its folder.
        dataset: name of the data set whose test split was used.
        n_images: pictures in it; every one went through every engine.
        test_set: `AS_AT_TRAINING`, or how it differs.
        versions: of samdeploy and the runtimes.
        machine: processor, cores and system.
        results: one per engine, in the order they were asked for.
        passed: every engine that ran kept its promise, at least one ran, and so did each that was asked for by name.
    """

    bundle: str
    dataset: str
    n_images: int
    test_set: str
    versions: dict[str, str]
    machine: str
    results: tuple[Result, ...]
    passed: bool

    def to_json(self) -> dict[str, Any]:
        """The whole report as documented in DESIGN.md."""
        return {
            "passed": self.passed,
            "n_images": self.n_images,
            "dataset": self.dataset,
            "test_set": self.test_set,
            "bundle": self.bundle,
            "machine": self.machine,
            "versions": self.versions,
            "results": [result.to_json() for result in self.results],
        }


_HEADER = f"{'engine':<12} {'prec':<4} {'dev':<4} {'top-1':>6} {'PyTorch':>7} {'agree':>6} {'max diff':>8} " + (
    f"{'p50':>6} {'p95':>6} {'p99':>6} gate"
)


def verdict(report: Report) -> str:
    """In a few words: passed or not, and what the verdict does not cover."""
    missing = [f"{result.backend} {result.precision}" for result in report.results if not result.ran]
    gaps = [f"not run here: {', '.join(missing)}"] if missing else []
    gaps += [] if report.test_set == AS_AT_TRAINING else [f"test set {report.test_set}"]
    return ("PASSED" if report.passed else "NOT PASSED") + (f" ({'; '.join(gaps)})" if gaps else "")


def table(report: Report) -> str:
    """The report in at most 80 columns; reasons follow below the rows they belong to."""
    lines = [_HEADER, "-" * len(_HEADER)]
    lines += [_row(result) for result in report.results]
    lines.append(f"top-1 and agreement in %, n = {report.n_images:,} test images; latency in ms at batch 1")
    if report.test_set != AS_AT_TRAINING:
        lines.append(f"test set: {report.test_set}")
    for result in report.results:
        if result.reason:
            text = f"{result.backend} {result.precision}: {result.reason}"
            lines += textwrap.wrap(text, 80, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(lines)


def _row(result: Result) -> str:
    start = f"{result.backend:<12} {result.precision:<4} "
    found, times = result.comparison, result.latency
    if found is None or times is None:
        return f"{start}{'-':<4} not run here"
    numbers = f"{found.top1:6.2f} {found.reference_top1:7.2f} {found.top1_agreement:6.2f} "
    numbers += f"{found.max_abs_logit_difference:8.1e} {_ms(times.p50_ms)} {_ms(times.p95_ms)} {_ms(times.p99_ms)}"
    return f"{start}{result.device:<4} {numbers} {'ok' if result.passed else 'FAIL'}"


def _ms(value: float) -> str:
    """Six characters with as many digits as fit."""
    return f"{value:6.3f}" if value < 10 else f"{value:6.2f}" if value < 999.995 else f"{value:6.0f}"
