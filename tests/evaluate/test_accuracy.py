"""`compare` on logits small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from samdeploy.evaluate.accuracy import compare

REFERENCE = np.array([[3, 1, 0], [0, 2, 1], [1, 0, 4], [5, 0, -1]], np.float32)  # names 0, 1, 2, 0
LABELS = np.array([0, 1, 1, 0], np.int64)


def test_equal_logits() -> None:
    found = compare(REFERENCE.copy(), REFERENCE, LABELS)
    assert (found.top1, found.reference_top1, found.top1_agreement) == (75.0, 75.0, 100.0)
    assert (found.max_abs_logit_difference, found.logit_range, found.finite) == (0.0, 6.0, True)


def test_one_other_answer_is_right_and_one_wrong() -> None:
    logits = REFERENCE.copy()
    logits[2] = [1, 4.5, 4]  # now the label
    logits[3] = [5, 0, 5.5]  # no longer the label; the largest difference: 6.5
    found = compare(logits, REFERENCE, LABELS)
    assert (found.top1, found.reference_top1, found.top1_agreement) == (75.0, 75.0, 50.0)
    assert found.max_abs_logit_difference == 6.5


def test_the_sign_of_a_difference_does_not_matter() -> None:
    logits = REFERENCE.copy()
    logits[1, 0] -= 0.25
    assert compare(logits, REFERENCE, LABELS).max_abs_logit_difference == 0.25


def test_the_first_of_equal_logits_counts_on_both_sides() -> None:
    tied = np.zeros((2, 3), np.float32)
    found = compare(tied, tied, np.array([0, 1]))
    assert (found.top1, found.top1_agreement) == (50.0, 100.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 2])
def test_a_row_that_is_not_finite_names_no_class(value: float, column: int) -> None:
    logits = REFERENCE.copy()
    logits[0, column] = value  # numpy's argmax would name the column of a NaN, and here the label's
    found = compare(logits, REFERENCE, LABELS)
    assert (found.top1, found.reference_top1, found.top1_agreement) == (50.0, 75.0, 75.0)
    assert found.max_abs_logit_difference == np.inf
    assert found.finite is False


def test_nothing_but_nan() -> None:
    found = compare(np.full_like(REFERENCE, np.nan), REFERENCE, LABELS)
    assert (found.top1, found.top1_agreement, found.finite) == (0.0, 0.0, False)


def test_differences_are_formed_in_float64() -> None:
    # In float32, 3e38 - -3e38 overflows.
    logits = np.array([[3e38, 0]], np.float32)
    assert compare(logits, -logits, np.array([0])).max_abs_logit_difference == pytest.approx(6e38, rel=1e-6)


@pytest.mark.parametrize(("hits", "of", "percent"), [(359, 359, 100.0), (7, 7, 100.0), (0, 3, 0.0), (1, 3, 100 / 3)])
def test_percentages(hits: int, of: int, percent: float) -> None:
    logits = np.tile(np.array([[1, 0]], np.float32), (of, 1))
    labels = np.array([0] * hits + [1] * (of - hits), np.int64)
    assert compare(logits, logits, labels).top1 == percent
