"""Which classes are taken for which, by the trained network and by each engine that answers differently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from samdeploy.arrays import Int64Array
from samdeploy.evaluate.accuracy.compare import Int32Array, PerImage
from samdeploy.evaluate.result import Report
from samdeploy.metrics import confusion_matrix

# Beyond this, a matrix is larger than a page, and nearly all of it is zero.
MOST_CLASSES = 20
_MOST_PAIRS = 20


@dataclass(frozen=True, slots=True)
class Pair:
    """Images of class `label` that were taken for class `named`, and how many of them the reference takes for it."""

    label: str
    named: str
    images: int
    reference_images: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """What a group of engines that name the same class for every image takes for what.

    Attributes:
        names: the reference and engines.
        counts: [K][K], images of each class (row) by the class that was named (column); None for more than
            `MOST_CLASSES` classes.
        pairs: the most frequent mistakes, the most frequent first.
        mistakes: images that were taken for another class, or for none.
        unnamed: images for which the logits are not finite.
    """

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...] | None
    pairs: tuple[Pair, ...]
    mistakes: int
    unnamed: int


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of a group of engines that name the same class for every image; -1 is none."""

    names: tuple[str, ...]
    labels: Int32Array
    named: Int32Array
    reference: Int32Array

    def matrix(self, classes: int) -> Int64Array:
        """See `samdeploy.metrics.confusion_matrix`."""
        return confusion_matrix(self.labels, self.named, classes)


def different_answers(report: Report) -> tuple[Answers, ...]:
    """Those of the trained network, and each different way in which engines answer; none without an answer."""
    groups: dict[bytes, tuple[list[str], PerImage, Int32Array]] = {}
    for result in report.results:
        if result.comparison is not None:
            answers = result.comparison.per_image
            groups.setdefault(answers.reference.tobytes(), ([report.reference], answers, answers.reference))
            names, _, _ = groups.setdefault(answers.engine.tobytes(), ([], answers, answers.engine))
            names.append(result.engine)
    return tuple(
        Answers(tuple(names), answers.labels, named, answers.reference) for names, answers, named in groups.values()
    )


def confusions(report: Report) -> tuple[Confusion, ...]:
    """One for each of `different_answers`."""
    return tuple(_confusion(answers, report.class_names) for answers in different_answers(report))


def _confusion(answers: Answers, class_names: Sequence[str]) -> Confusion:
    classes = len(class_names)
    matrix, reference = answers.matrix(classes), confusion_matrix(answers.labels, answers.reference, classes)
    mistakes = matrix[:, :classes].copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:_MOST_PAIRS]
    places = [divmod(int(place), classes) for place in order if mistakes.flat[place]]
    pairs = tuple(
        Pair(class_names[row], class_names[column], int(mistakes[row, column]), int(reference[row, column]))
        for row, column in places
    )
    return Confusion(
        names=answers.names,
        counts=tuple(tuple(map(int, row[:classes])) for row in matrix) if classes <= MOST_CLASSES else None,
        pairs=pairs,
        mistakes=int((answers.named != answers.labels).sum()),
        unnamed=int(matrix[:, classes].sum()),
    )
