"""The result of a comparison, and `compare.json`, which docs/files.md documents.

Percentages are 0 to 100, times milliseconds, and what was not measured is null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from samdeploy.bundle.fields import to_json
from samdeploy.bundle.spec import Preprocessing
from samdeploy.compare.answers import Answers, Differing, Rate
from samdeploy.compare.latency import LatencyRatio, Times
from samdeploy.data.duplicates.leaks import LeakReport
from samdeploy.evaluate.accuracy.gate import Verdict

JSON_FILE = "compare.json"


@dataclass(frozen=True, slots=True)
class Network:
    """One of the two, as it was run.

    Attributes:
        path: of the bundle, or of the run that was never exported.
        is_run: whether it is such a run.
        arch: for people, with the options of its family.
        preprocessing: its own.
        weights_sha256: "" for a bundle without weights.
        is_imported: whether it was trained elsewhere; "train" is then what its engines were made with.
        leaks: compared images that are in its train or val; None where that is not known.
    """

    path: str
    is_run: bool
    arch: str
    preprocessing: Preprocessing
    weights_sha256: str
    is_imported: bool
    leaks: LeakReport | None

    def seen_in(self, split: str) -> int | None:
        """How many of the compared images are in its "train" or "val"; None where that is not known."""
        rows = self.leaks.overlaps if self.leaks else ()
        return next((row.exact for row in rows if row.other == split), None)


@dataclass(frozen=True, slots=True)
class ComparedImages:
    """The images.

    Attributes:
        source: what they are, in words.
        folder: in which all lie; "" where they are not in files of their own.
        is_labelled: whether their classes are known.
        found: how many there were.
        compared: of those, readable ones that are no copies and were not looked at when an engine was made.
        copies: left out, as an earlier one has the same pixels.
        unreadable: what cannot be read, and why.
        notes: on their files.
    """

    source: str
    folder: str
    is_labelled: bool
    found: int
    compared: int
    copies: int
    unreadable: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CompareReport:
    """Two networks on the same images.

    Attributes:
        a, b: the networks.
        backend, precision, device: what ran both.
        images: that were compared.
        names: what to call each image of `answers.differing`.
        class_names: index -> name, in A's order.
        answers: of both.
        latency: None if it was not asked for.
        confidence: of the intervals of rates, in (0, 1).
        margin: points of top-1 that B may lose; None: nothing was asked.
        verdict: on the margin; None without one.
        reasons: why it does not hold, in words.
        n_needed: images that would decide, where the verdict is "cannot tell"; None if no number would.
        is_same_network: whether both hold the same weights with the same preprocessing.
        notes: what the reader should know of the two.
        date, machine, versions: when, where and with what.
    """

    a: Network
    b: Network
    backend: str
    precision: str
    device: str
    images: ComparedImages
    names: tuple[str, ...]
    class_names: tuple[str, ...]
    answers: Answers
    latency: LatencyRatio | None
    confidence: float
    margin: float | None
    verdict: Verdict | None
    reasons: tuple[str, ...]
    n_needed: int | None
    is_same_network: bool
    notes: tuple[str, ...]
    date: str
    machine: str
    versions: Mapping[str, str]

    @property
    def passed(self) -> bool:
        """Whether B keeps the margin, and, of images without labels, each could be read: what the exit code says."""
        return self.verdict in (None, "holds") and not self.images.unreadable

    def to_json(self) -> dict[str, Any]:
        """As documented in docs/files.md."""
        found, latency = self.answers.accuracies, self.latency
        return {
            "passed": self.passed,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "margin": self.margin,
            "n_needed": self.n_needed,
            "confidence": self.confidence,
            "a": _network(self.a, found.a if found else None, latency.a if latency else None),
            "b": _network(self.b, found.b if found else None, latency.b if latency else None),
            "same_network": self.is_same_network,
            "backend": self.backend,
            "precision": self.precision,
            "device": self.device,
            "images": _images(self.images),
            "agreement": _rate(self.answers.agreement),
            "change": found and {**to_json(found.change), "mcnemar_p": found.mcnemar_p},
            "classes": found
            and [
                {"label": self.class_names[row.index], "images": row.images, "a_top1": row.reference_top1,
                 "b_top1": row.top1, "difference": row.top1 - row.reference_top1}
                for row in found.classes
            ],
            "moves": [{"a": a, "b": b, "images": count} for a, b, count in self.answers.moves],
            "differing": [
                _differing(name, row) for name, row in zip(self.names, self.answers.differing, strict=True)
            ],
            "latency": latency and _ratio(latency),
            "notes": list(self.notes),
            "date": self.date,
            "machine": self.machine,
            "versions": dict(self.versions),
        }  # fmt: skip


def _network(network: Network, top1: Rate | None, times: Times | None) -> dict[str, Any]:
    return {
        "path": network.path,
        "is_run": network.is_run,
        "arch": network.arch,
        "preprocessing": to_json(network.preprocessing),
        "weights_sha256": network.weights_sha256 or None,
        "is_imported": network.is_imported,
        "in_train": network.seen_in("train"),
        "in_val": network.seen_in("val"),
        "top1": top1 and _rate(top1),
        "latency": times and to_json(times),
    }


def _images(images: ComparedImages) -> dict[str, Any]:
    values: dict[str, Any] = to_json(images)
    return values


def _rate(rate: Rate) -> dict[str, Any]:
    values: dict[str, Any] = to_json(rate)
    return values


def _differing(name: str, row: Differing) -> dict[str, Any]:
    values: dict[str, Any] = to_json(row)
    return {"image": name, **{key: value for key, value in values.items() if key != "place"}}


def _ratio(latency: LatencyRatio) -> dict[str, Any]:
    return {
        "rounds": latency.rounds,
        "ratio": latency.median,
        "ratio_low": latency.low,
        "ratio_high": latency.high,
        "waited_percent": latency.waited_percent,
        "noise": latency.noise,
    }
