"""The result of an evaluation, as JSON.

docs/files.md documents the JSON.  Percentages are 0 to 100, times milliseconds, and what was not measured is null.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from samdeploy.data.duplicates.leaks import LeakReport
from samdeploy.evaluate.accuracy.against_training import AgainstTraining
from samdeploy.evaluate.accuracy.compare import ClassAccuracy, Comparison
from samdeploy.evaluate.accuracy.floors import NO_FLOORS, Floors
from samdeploy.evaluate.accuracy.gate import Verdict
from samdeploy.evaluate.finite_json import finite_json
from samdeploy.evaluate.latency.measure import Latency
from samdeploy.evaluate.test_set.distinct import TestImages
from samdeploy.metrics import is_chance

# Images with another answer that a report lists; all of them are in `Comparison.per_image`.
MOST_CHANGED = 200


class Part(Protocol):
    """What a further check found about an engine; stands in the engine's row under the check's name."""

    def to_json(self) -> dict[str, Any]:
        """Without NaN or infinity."""
        ...


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """A further check that could not be made, and why."""

    reason: str

    def to_json(self) -> dict[str, Any]:
        """As in eval.json, in the place of what the check would have said."""
        return {"reason": self.reason}


@dataclass(frozen=True, slots=True)
class Result:
    """One engine's row.

    Attributes:
        backend, precision, device: which engine, and where it ran; device is "" if it did not run.
        ran: whether it could run here.
        worst: the first of its reasons: the one that matters most.
        reason: why it could not, where it stopped, or which promises it broke; "" if all is well.
        comparison: None if it did not answer every image.
        latency: None if it was not measured.
        passed: the gate held.  Never True for an engine that did not run.
        verdict: of the gate; None if the engine did not answer every image, or stopped later.
        n_needed: images that would decide, where the verdict is "cannot tell"; None if no number would.
        below_minimum: which of the report's floors it does not reach; "" if all, or if none were asked for.
        n_images_done: images that it answered.
        date: when it was measured, UTC, ISO 8601.
        machine, versions: where and with what.
        parts: further checks, by name.
    """

    backend: str
    precision: str
    device: str
    ran: bool
    reason: str
    comparison: Comparison | None
    latency: Latency | None
    passed: bool
    verdict: Verdict | None = None
    n_needed: int | None = None
    below_minimum: str = ""
    worst: str = ""
    n_images_done: int = 0
    date: str = ""
    machine: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Part] = field(default_factory=dict)

    @property
    def engine(self) -> str:
        """What to call it in a message: "openvino int8"."""
        return f"{self.backend} {self.precision}"

    def to_json(self, class_names: Sequence[str]) -> dict[str, Any]:
        """The row as documented in docs/files.md; `class_names`: index -> name."""
        return {
            **_fields(self, "backend", "precision", "device", "ran", "reason"),
            **_accuracy(self.comparison, class_names),
            **_fields(self.latency, "p50_ms", "p95_ms", "p99_ms"),
            "latency_runs": self.latency and self.latency.runs,
            "latency": self.latency and self.latency.to_json(),
            **_fields(self, "passed", "verdict", "n_needed", "below_minimum", "n_images_done"),
            **_fields(self, "date", "machine", "versions"),
            **{name: part.to_json() for name, part in self.parts.items()},
        }


@dataclass(frozen=True, slots=True)
class Report:
    """All rows and the verdict.

    Attributes:
        bundle: its folder.
        dataset: name of the data set whose test split was used.
        n_images: distinct ones in it, those that were compared.
        test_images: copies, likenesses and classes of the test set.
        test_set: `test_set.AS_AT_TRAINING`, or how it differs; `test_set.TRAINED_ELSEWHERE` of an imported network.
        reference: what the engines are compared with: "PyTorch", or "the ONNX file" that was imported.
        versions: of samdeploy and the runtimes.
        machine: processor, cores and system.
        results: one per engine, in the order they were asked for.
        named: whether the engines were asked for by name, so that one that did not run is a promise not kept.
        margin: points of top-1 that an engine below FP32 may lose.
        confidence: of the intervals, in (0, 1).
        floors: what every engine had to reach beside the gate.
        class_names: index -> name.
        manifest_sha256, test_fingerprint: which bundle and which images, to the last byte.
        notes: what there is to say about the images and their files.
        leaks: test images that were trained on; None where the run's hashes are not at hand.
        left_out: in words, the bundle's engines that were not asked for, and its graphs that no engine ran.
        faults: why the evaluation as a whole fails, whatever the engines answer; one sentence each, the worst first.
        test_set_faults: those of them that the test set is to blame for, and not the bundle.
        data_root: folder of the data set that was named; None where it was found without.
    """

    bundle: str
    dataset: str
    n_images: int
    test_images: TestImages
    test_set: str
    versions: Mapping[str, str]
    machine: str
    results: tuple[Result, ...]
    named: bool
    margin: float
    confidence: float
    class_names: tuple[str, ...]
    manifest_sha256: str
    test_fingerprint: str
    notes: tuple[str, ...] = ()
    leaks: LeakReport | None = None
    left_out: tuple[str, ...] = ()
    floors: Floors = NO_FLOORS
    faults: tuple[str, ...] = ()
    against_training: AgainstTraining | None = None
    test_set_faults: tuple[str, ...] = ()
    data_root: str | None = None
    reference: str = "PyTorch"

    @property
    def verdict(self) -> Verdict:
        """See `overall_verdict`."""
        rows = [(row.ran, row.passed, row.verdict) for row in self.results]
        return overall_verdict(rows, named=self.named, faults=self.faults)

    @property
    def is_chance(self) -> bool:
        """See `samdeploy.metrics.is_chance`, of the reference itself."""
        found = next((row.comparison for row in self.results if row.comparison is not None), None)
        if found is None:
            return False
        correct = round(found.reference_top1 * self.n_images / 100)
        return is_chance(correct, self.n_images, len(self.class_names))

    def failing(self) -> Iterator[Result]:
        """The rows because of which the verdict is "fails", those that ran first."""
        counted = [row for row in self.results if not row.passed and row.verdict != "cannot tell"]
        yield from (row for row in counted if row.ran)
        if self.named:
            yield from (row for row in counted if not row.ran)

    @property
    def passed(self) -> bool:
        """Whether the promise was kept; with `verdict` "cannot tell" it was not."""
        return self.verdict == "holds"

    def to_json(self) -> dict[str, Any]:
        """The whole report as documented in docs/files.md."""
        return {
            **_fields(self, "passed", "verdict", "n_images"),
            "test_images": self.test_images.to_json(),
            **_fields(self, "dataset", "test_set", "reference", "is_chance", "margin", "confidence"),
            **_fields(self.floors, "min_top1", "min_class_recall"),
            **_fields(self, "bundle", "manifest_sha256", "test_fingerprint", "machine", "versions", "notes"),
            "leaks": self.leaks and self.leaks.to_json(),
            **_fields(self, "left_out", "faults", "test_set_faults", "data_root"),
            "against_training": self.against_training and self.against_training.to_json(),
            "results": [result.to_json(self.class_names) for result in self.results],
        }


def overall_verdict(
    rows: Iterable[tuple[bool, bool, str | None]], *, named: bool, faults: Sequence[str] = ()
) -> Verdict:
    """The verdict on all rows together.

    "holds" if every engine that ran keeps its promise, at least one ran, and so did each that was asked for by name;
    "cannot tell" if nothing fails, but the images were too few for an engine; else, or with any fault, "fails".

    Args:
        rows: `ran`, `passed` and `verdict` of each.
        named: whether they were asked for by name.
        faults: of the evaluation as a whole, see `Report`.
    """
    counted = [(passed, verdict) for ran, passed, verdict in rows if ran or named]
    if faults or not counted or any(not passed and verdict != "cannot tell" for passed, verdict in counted):
        return "fails"
    return "holds" if all(passed for passed, _ in counted) else "cannot tell"


def _fields(found: object | None, *names: str) -> dict[str, Any]:
    """Fields of a dataclass as JSON values: null for numbers that are not finite, and all null without a value."""
    return {name: finite_json(getattr(found, name, None)) for name in names}


def _accuracy(found: Comparison | None, class_names: Sequence[str]) -> dict[str, Any]:
    worst = found.worst_class() if found else None
    return {
        **_fields(found, "top1", "reference_top1", "top1_agreement"),
        "max_difference_of_range": found.max_difference_of_range if found and found.finite else None,
        **_fields(found, "top5", "reference_top5"),
        **_fields(found and found.change, "lost", "gained"),
        **_fields(found, "mcnemar_p"),
        "difference": found and found.change.difference,
        "difference_low": found and found.change.low,
        "difference_high": found and found.change.high,
        **_fields(found, "ece", "reference_ece", "balanced_accuracy", "reference_balanced_accuracy"),
        **_fields(found, "macro_f1", "reference_macro_f1"),
        "worst_class": worst and _class_row(worst, class_names),
        "classes": [_class_row(row, class_names) for row in found.classes] if found else None,
        "changed": _changed(found, class_names) if found else None,
    }


def _class_row(row: ClassAccuracy, class_names: Sequence[str]) -> dict[str, Any]:
    return {"label": class_names[row.index], **_fields(row, "images", "top1", "reference_top1", "precision", "f1")}


def _changed(found: Comparison, class_names: Sequence[str]) -> list[dict[str, Any]]:
    def name(index: int) -> str | None:
        return class_names[index] if index >= 0 else None

    images = found.per_image
    return [
        {
            "index": images.place(index),
            "label": name(images.labels[index]),
            "reference": name(images.reference[index]),
            "engine": name(images.engine[index]),
        }
        for index in images.changed()[:MOST_CHANGED]
    ]
