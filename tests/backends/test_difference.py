"""The scale of an image's answer, on numbers small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from samdeploy.backends.difference import difference_shares, image_ranges


def test_a_images_own_range_or_the_median_one() -> None:
    logits = np.array([[0, 2], [5, 1], [-3, 0], [1e6, -1e6]], np.float32)  # 2, 4, 3, 2e6; median 3.5
    assert image_ranges(logits).tolist() == [3.5, 4, 3.5, 2e6]
    assert image_ranges(logits[:1]).tolist() == [2]
    assert image_ranges(logits.reshape(4, 1, 2, 1)).tolist() == [3.5, 4, 3.5, 2e6]


def test_no_range_at_all() -> None:
    flat = np.ones((3, 4), np.float32)
    assert image_ranges(flat).tolist() == [1, 1, 1]
    assert image_ranges(flat, 7.0).tolist() == [7, 7, 7]
    flat[2, 0] = 3  # the median is 0 still
    assert image_ranges(flat, 7.0).tolist() == [7, 7, 2]


def test_ranges_are_formed_in_float64() -> None:
    assert image_ranges(np.array([[3e38, -3e38]], np.float32)).item() == pytest.approx(6e38, rel=1e-6)


def test_shares_row_by_row() -> None:
    expected = np.array([[0, 2], [0, 4], [0, 8]], np.float32)
    found = expected + np.array([[0, 1], [-3, 0], [0, 0]], np.float32)
    assert difference_shares(found, expected, np.array([4.0, 4.0, 8.0])).tolist() == [0.25, 0.75, 0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_infinitely_far(value: float) -> None:
    expected = np.zeros((2, 3), np.float32)
    found = expected.copy()
    found[1, 2] = value
    assert difference_shares(found, expected, np.ones(2)).tolist() == [0, np.inf]
