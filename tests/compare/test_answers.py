"""Answers that are compared, without a network."""

from __future__ import annotations

import numpy as np
import pytest

from samdeploy.compare.answers import compare_answers
from samdeploy.evaluate.accuracy.paired import rate_interval

CLASSES = ("cat", "dog", "fox")
A = np.array([[3, 1, 0], [3, 1, 0], [0, 3, 0], [0, 0, 3], [0, 0, 3]], np.float32)
B = np.array([[3, 1, 0], [0, 3, 0], [0, 3, 1], [0, np.nan, 3], [3, 0, 0]], np.float32)
LABELS = np.array([0, 1, 1, 2, 1])
PLACES = np.array([0, 2, 4, 6, 8])


def test_flips_come_in_order() -> None:
    found = compare_answers(A, B, LABELS, CLASSES, places=PLACES, confidence=0.95)
    assert [(row.place, row.label, row.a, row.b, row.right) for row in found.differing] == [
        (6, "fox", "fox", None, "A"),
        (2, "dog", "cat", "dog", "B"),
        (8, "dog", "fox", "cat", "neither"),
    ]
    assert found.differing[0].b_probability is None
    assert found.differing[1].b_probability == pytest.approx(np.exp(3) / (np.exp(3) + 2))
    accuracies = found.accuracies
    assert accuracies is not None
    assert (accuracies.a.images, accuracies.b.images, accuracies.change.difference) == (3, 3, 0)
    assert [CLASSES[row.index] for row in accuracies.classes] == ["fox", "dog", "cat"]
    assert found.agreement.percent == 40


def test_two_that_give_no_answer_do_not_agree() -> None:
    none = np.full((2, 3), np.nan, np.float32)
    found = compare_answers(none, none, None, CLASSES, places=np.arange(2), confidence=0.95)
    assert (found.agreement.images, found.moves) == (0, ((None, None, 2),))


@pytest.mark.parametrize(("hits", "images"), [(0, 10), (7, 10), (10, 10), (353, 359)])
def test_interval_of_a_rate(hits: int, images: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    low, high = stats.binomtest(hits, images).proportion_ci(0.95, "exact")
    assert rate_interval(hits, images, 0.95) == pytest.approx((100 * low, 100 * high))
