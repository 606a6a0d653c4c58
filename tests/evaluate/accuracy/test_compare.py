"""`compare` on logits small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from samdeploy.evaluate.accuracy.compare import compare

REFERENCE = np.array([[3, 1, 0], [0, 2, 1], [1, 0, 4], [5, 0, -1]], np.float32)  # names 0, 1, 2, 0
LABELS = np.array([0, 1, 1, 0], np.int64)


def test_equal_logits() -> None:
    found = compare(REFERENCE.copy(), REFERENCE, LABELS)
    assert (found.top1, found.reference_top1, found.top1_agreement) == (75.0, 75.0, 100.0)
    assert (found.max_difference_of_range, found.finite) == (0.0, True)


def test_one_other_answer_is_right_and_one_wrong() -> None:
    logits = REFERENCE.copy()
    logits[2] = [1, 4.5, 4]  # now the label; the largest difference for its image: 4.5 of 4
    logits[3] = [5, 0, 5.5]  # no longer the label; 6.5 of 6
    found = compare(logits, REFERENCE, LABELS)
    assert (found.top1, found.reference_top1, found.top1_agreement) == (75.0, 75.0, 50.0)
    assert found.max_difference_of_range == 1.125


def test_the_sign_of_a_difference_does_not_matter() -> None:
    logits = REFERENCE.copy()
    logits[1, 0] -= 0.25
    # Its own range is 2, the median image's (3 + 4) / 2.
    assert compare(logits, REFERENCE, LABELS).max_difference_of_range == 0.25 / 3.5


def test_one_image_does_not_set_the_scale_for_the_others() -> None:
    logits, reference = REFERENCE.copy(), REFERENCE.copy()
    logits[0] = reference[0] = [1e6, 0, 0]  # ranges: 1e6, 2, 4, 6; median 5
    logits[2, 1] += 0.625
    assert compare(logits, reference, LABELS).max_difference_of_range == 0.125
    logits[0, 1] += 1e5  # larger by far, and a smaller share
    assert compare(logits, reference, LABELS).max_difference_of_range == 0.125


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
    assert found.max_difference_of_range == np.inf
    assert found.finite is False


def test_nothing_but_nan() -> None:
    found = compare(np.full_like(REFERENCE, np.nan), REFERENCE, LABELS)
    assert (found.top1, found.top1_agreement, found.finite) == (0.0, 0.0, False)


def test_differences_are_formed_in_float64() -> None:
    # In float32, 3e38 - -3e38 overflows.
    logits = np.array([[3e38, 0]], np.float32)
    assert compare(logits, -logits, np.array([0])).max_difference_of_range == 2.0


@pytest.mark.parametrize(("hits", "of", "percent"), [(359, 359, 100.0), (7, 7, 100.0), (0, 3, 0.0), (1, 3, 100 / 3)])
def test_percentages(hits: int, of: int, percent: float) -> None:
    logits = np.tile(np.array([[1, 0]], np.float32), (of, 1))
    labels = np.array([0] * hits + [1] * (of - hits), np.int64)
    assert compare(logits, logits, labels).top1 == percent


def test_flips_each_way() -> None:
    labels = np.array([0] * 10, np.int64)
    right, wrong, other = [2, 1, 0], [1, 2, 0], [1, 0, 2]
    reference = np.array([right] * 6 + [wrong] * 4, np.float32)
    # Lost: 4 and 5.  Gained: 6.  Wrong in two ways: 8.
    logits = np.array([right] * 4 + [wrong, other, right, wrong, other, wrong], np.float32)
    found = compare(logits, reference, labels, confidence=0.9)
    assert (found.change.lost, found.change.gained, found.change.n_images) == (2, 1, 10)
    assert (found.change.difference, found.change.confidence) == (-10.0, 0.9)
    assert found.mcnemar_p == 1.0
    assert found.per_image.changed().tolist() == [4, 5, 6, 8]
    assert found.per_image.engine.tolist() == [0, 0, 0, 0, 1, 2, 0, 1, 2, 1]
    assert found.per_image.reference.tolist() == [0] * 6 + [1] * 4
    assert {array.dtype for array in (found.per_image.engine, found.per_image.reference, found.per_image.labels)} == {
        np.dtype(np.int32)
    }


def test_a_row_that_is_not_finite_is_lost() -> None:
    logits = REFERENCE.copy()
    logits[0, 1] = np.nan
    found = compare(logits, REFERENCE, LABELS)
    assert (found.change.lost, found.change.gained) == (1, 0)
    assert found.per_image.engine.tolist() == [-1, 1, 2, 0]
    assert found.ece is None and found.reference_ece is not None


def test_top5_counts_the_label_among_the_five_highest() -> None:
    labels = np.arange(8)
    reference = np.tile(np.arange(8, 0, -1, dtype=np.float32), (8, 1))  # label i has rank i
    found = compare(reference, reference, labels)
    assert (found.top5, found.reference_top5, found.top1) == (100 * 5 / 8, 100 * 5 / 8, 100 / 8)
    reversed_order = reference[:, ::-1].copy()
    assert compare(reversed_order, reference, np.zeros(8, np.int64)).top5 == 0.0


def test_top5_of_equal_logits_takes_the_first_as_top1_does() -> None:
    tied = np.zeros((8, 8), np.float32)
    found = compare(tied, tied, np.arange(8))
    assert (found.top1, found.top5) == (100 / 8, 100 * 5 / 8)
    assert compare(tied[:5], tied[:5], np.arange(5)).top5 == 100.0


def test_top5_of_five_classes_says_nothing() -> None:
    logits = np.zeros((2, 5), np.float32)
    assert compare(logits, logits, np.array([0, 4])).top5 is None


def test_top5_leaves_out_rows_that_are_not_finite() -> None:
    logits = np.tile(np.arange(8, 0, -1, dtype=np.float32), (2, 1))
    broken = logits.copy()
    broken[1, 7] = np.nan
    assert compare(broken, logits, np.array([0, 0])).top5 == 50.0


def test_classes() -> None:
    reference = np.array([[1, 0, 0, 0]] * 4 + [[0, 1, 0, 0]] * 2 + [[0, 0, 0, 1]] * 5, np.float32)
    labels = np.array([0] * 4 + [1] * 2 + [3] * 5)  # class 2 has no images
    logits = reference.copy()
    logits[[0, 4]] = [0, 0, 1, 0]  # one of four, and one of two
    found = compare(logits, reference, labels)
    assert [(row.index, row.images, row.top1, row.reference_top1) for row in found.classes] == [
        (0, 4, 75.0, 100.0),
        (1, 2, 50.0, 100.0),
        (3, 5, 100.0, 100.0),
    ]
    assert found.worst_class().index == 1


def test_the_worst_class_is_the_one_that_lost_most_not_the_one_that_is_hard() -> None:
    labels = np.array([0, 0, 1, 1])
    reference = np.array([[0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]], np.float32)  # class 0: 0 %, class 1: 100 %
    logits = reference.copy()
    logits[3] = [0, 0, 1]
    assert compare(logits, reference, labels).worst_class().index == 1
    assert compare(reference, reference, labels).worst_class().index == 0


def test_parts_of_a_large_set_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    reference = random.normal(size=(50, 9)).astype(np.float32)
    logits = reference + random.normal(0, 0.3, (50, 9)).astype(np.float32)
    labels = random.integers(0, 9, 50)
    whole = compare(logits, reference, labels)
    monkeypatch.setattr("samdeploy.evaluate.accuracy.facts._ROWS", 7)
    assert compare(logits, reference, labels) == whole
    ranges = reference.max(axis=1).astype(float) - reference.min(axis=1)
    scale = np.maximum(ranges, np.median(ranges))
    assert whole.max_difference_of_range == (np.abs(logits.astype(float) - reference).max(axis=1) / scale).max()
