"""What two networks answer to the same images, image by image."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np

from samdeploy.arrays import BoolArray, Float32Array, Int64Array
from samdeploy.evaluate.accuracy.compare import ClassAccuracy, per_class, percent_of
from samdeploy.evaluate.accuracy.facts import chosen_classes
from samdeploy.evaluate.accuracy.paired import PairedDifference, mcnemar_p, paired_difference, rate_interval
from samdeploy.metrics import confusion_matrix
from samdeploy.ranking import softmax

Right = Literal["A", "B", "neither"]


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of the images in percent, with the exact interval of Clopper and Pearson."""

    images: int
    percent: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Differing:
    """An image to which the two give different answers.

    Attributes:
        place: where in the image set it is.
        label: class; None without labels.
        a, b: the class that each names; None where its logits are not finite.
        a_probability, b_probability: of that class, in [0, 1].
        right: who is; None without labels.
    """

    place: int
    label: str | None
    a: str | None
    a_probability: float | None
    b: str | None
    b_probability: float | None
    right: Right | None


@dataclass(frozen=True, slots=True)
class Accuracies:
    """What labels say of the two.

    Attributes:
        a, b: top-1 of each.
        change: of top-1 from A to B; lost: A is right and B is not.
        mcnemar_p: see `paired.mcnemar_p`.
        classes: those with images; `top1` is B's, `reference_top1` A's; those that moved most first.
    """

    a: Rate
    b: Rate
    change: PairedDifference
    mcnemar_p: float
    classes: tuple[ClassAccuracy, ...]


@dataclass(frozen=True, slots=True)
class Answers:
    """Both networks' answers.

    Attributes:
        agreement: images for which both name the same class.
        accuracies: None without labels.
        moves: (A's class, B's class, images) where they differ, the most frequent first.
        differing: images to which the answers differ: with labels A's gains first, then B's, then the others.
    """

    agreement: Rate
    accuracies: Accuracies | None
    moves: tuple[tuple[str | None, str | None, int], ...]
    differing: tuple[Differing, ...]


def compare_answers(
    a: Float32Array,
    b: Float32Array,
    labels: Int64Array | None,
    classes: tuple[str, ...],
    *,
    places: Int64Array,
    confidence: float,
    temperatures: tuple[float, float] = (1.0, 1.0),
) -> Answers:
    """Compare two networks' logits.

    Args:
        a, b: float32 [N, K], for the same images, N >= 1, and the same classes in the same order.
        labels: int64 [N]; None: not known.
        classes: K names.
        places: int64 [N], where in the image set each is.
        confidence: of the intervals.
        temperatures: of A's and B's probabilities.
    """
    first, second = chosen_classes(a), chosen_classes(b)
    same = (first == second) & (first >= 0)
    rows = np.flatnonzero(~same)
    if labels is not None:
        rows = rows[np.argsort(_kind(first[rows] == labels[rows], second[rows] == labels[rows]), kind="stable")]
    pairs = Counter(zip(first[rows].tolist(), second[rows].tolist(), strict=True))
    return Answers(
        agreement=_rate(same, confidence),
        accuracies=None if labels is None else _accuracies(first, second, labels, len(classes), confidence),
        moves=tuple((_name(classes, one), _name(classes, other), count) for (one, other), count in pairs.most_common()),
        differing=tuple(
            Differing(
                place=int(places[row]),
                label=None if labels is None else classes[labels[row]],
                a=_name(classes, first[row]),
                a_probability=_probability(a[row], first[row], temperatures[0]),
                b=_name(classes, second[row]),
                b_probability=_probability(b[row], second[row], temperatures[1]),
                right=None if labels is None else _right(first[row], second[row], labels[row]),
            )
            for row in rows
        ),
    )


def _accuracies(
    first: Int64Array, second: Int64Array, labels: Int64Array, n_classes: int, confidence: float
) -> Accuracies:
    a, b = first == labels, second == labels
    lost, gained = int((a & ~b).sum()), int((b & ~a).sum())
    before, after = (confusion_matrix(labels, answers, n_classes) for answers in (first, second))
    classes = sorted(per_class(after, before), key=lambda row: (-abs(row.top1 - row.reference_top1), row.index))
    return Accuracies(
        a=_rate(a, confidence),
        b=_rate(b, confidence),
        change=paired_difference(lost, gained, len(labels), confidence),
        mcnemar_p=mcnemar_p(lost, gained),
        classes=tuple(classes),
    )


def _rate(hits: BoolArray, confidence: float) -> Rate:
    count = int(hits.sum())
    return Rate(count, percent_of(hits), *rate_interval(count, len(hits), confidence))


def _kind(a: BoolArray, b: BoolArray) -> Int64Array:
    """0 where A alone is right, 1 where B alone is, 2 where neither is."""
    return np.where(a, 0, np.where(b, 1, 2))


def _right(a: int, b: int, label: int) -> Right:
    return "A" if a == label else "B" if b == label else "neither"


def _name(classes: tuple[str, ...], index: int) -> str | None:
    return classes[index] if index >= 0 else None


def _probability(logits: Float32Array, index: int, temperature: float) -> float | None:
    return float(softmax(logits[None], temperature)[0, index]) if index >= 0 else None
