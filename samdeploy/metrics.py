"""Figures of a classifier from its confusion matrix, int64 [K, K]: rows are the true classes, columns the answers.

A last column more, [K, K + 1], counts images without an answer.

As scikit-learn has them (`balanced_accuracy_score`, `precision_recall_fscore_support`): where a class has no image or
no answer, a ratio over none is 0.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samdeploy.arrays import Float64Array, Int64Array

# Of the two tests that tell chance.
_SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """Per class, [K] each.

    Attributes:
        precision: share of the class's answers that are right, 0 to 1.
        recall: share of the class's images that are answered right, 0 to 1.
        f1: harmonic mean of the two.
        support: images of the class.
    """

    precision: Float64Array
    recall: Float64Array
    f1: Float64Array
    support: Int64Array


def confusion_matrix(labels: NDArray[np.integer], answers: NDArray[np.integer], classes: int) -> Int64Array:
    """int64 [K, K + 1], of labels and answers [N]; an answer of -1 is none."""
    column = np.where(answers < 0, classes, answers).astype(np.int64)
    flat = np.bincount(labels.astype(np.int64) * (classes + 1) + column, minlength=classes * (classes + 1))
    return flat.reshape(classes, classes + 1)


def class_figures(confusion: Int64Array) -> ClassFigures:
    """Precision, recall, F1 and support of each class."""
    right, answers, support = np.diagonal(confusion), confusion.sum(0)[: len(confusion)], confusion.sum(1)
    return ClassFigures(
        _ratio(right, answers), _ratio(right, support), _ratio(2 * right, answers + support), support.astype(np.int64)
    )


def balanced_accuracy(confusion: Int64Array) -> float:
    """Mean recall of the classes that have images, in percent."""
    figures = class_figures(confusion)
    return 100 * float(figures.recall[figures.support > 0].mean())


def macro_f1(confusion: Int64Array) -> float:
    """Mean F1 of the classes that have images or answers, 0 to 1."""
    seen = (confusion.sum(0)[: len(confusion)] + confusion.sum(1)) > 0
    return float(class_figures(confusion).f1[seen].mean())


def is_chance(correct: int, total: int, classes: int) -> bool:
    """Whether answers are no better than those of a die, and it is not for want of images that this seems so."""
    from scipy.stats import binomtest  # takes a second to load

    above = binomtest(correct, total, 1 / classes, alternative="greater").pvalue
    below = binomtest(correct, total, halfway_from_chance(classes), alternative="less").pvalue
    return bool(above > _SIGNIFICANT > below)


def halfway_from_chance(classes: int) -> float:
    """The accuracy halfway between chance and no mistake, 0 to 1."""
    return (1 + 1 / classes) / 2


def confusion_csv(confusion: Int64Array, classes: Sequence[str]) -> str:
    """One line for each true class, one column for each answer, and one for no answer where there are such images."""
    none = confusion[:, len(classes) :].any()
    answers = [*classes, "none"] if none else classes
    rows = confusion[:, : len(answers)]
    return _csv([["true \\ answer", *answers], *([name, *row] for name, row in zip(classes, rows, strict=True))])


def classes_csv(confusion: Int64Array, classes: Sequence[str]) -> str:
    """One line for each class: precision, recall, F1 and support."""
    found = class_figures(confusion)
    shares = np.stack([found.precision, found.recall, found.f1], axis=1)
    lines = zip(classes, shares, found.support, strict=True)
    rows = [[name, *(f"{share:.4f}" for share in of_class), support] for name, of_class, support in lines]
    return _csv([["class", "precision", "recall", "f1", "support"], *rows])


def _ratio(part: Int64Array, whole: Int64Array) -> Float64Array:
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)


def _csv(lines: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
