"""What the answers of one engine to one image agree on, and which sizes and positions depart from it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest

from samdeploy.evaluate.consistency.answers import Answers, ranges_text, wrong_positions


def rows(*values: float) -> np.ndarray:
    """Logits [n, 2] whose range is 10 and whose first value is given."""
    return np.array([[value, value + 10] for value in values], np.float32)


def test_each_batch_size_has_one_vote() -> None:
    answers = Answers()
    for size in (1, 2, 3):
        answers.add([0] * size, rows(*[0.0] * size), f"size {size}")
    for number in range(20):  # often tried and always wrong
        answers.add([0] * 4, rows(1, 1, 1, 1), f"size 4, time {number}")
    found = answers.departures()
    np.testing.assert_allclose(found.shares[:6], 0)
    np.testing.assert_allclose(found.shares[6:], 0.1)
    assert found.describe_worst() == "size 4, time 0, position 0"


def test_a_image_with_huge_logits_does_not_hide_the_others() -> None:
    """The scale of an image is its own range, or the median image's, which one huge one does not move."""
    answers = Answers()
    for run, value in (("a", 0.0), ("b", 0.0), ("c", 0.5)):
        answers.add([0, 1, 2], np.vstack([rows(7) * np.float32(1e8), rows(1, value)]), run)
    found = answers.departures()
    assert found.worst == pytest.approx(0.05)
    assert found.describe_worst() == "c, position 2"


def test_a_image_with_equal_logits_is_judged_on_the_scale_of_the_others() -> None:
    answers = Answers()
    for run, value in (("a", 0.0), ("b", 0.0), ("c", 1e-4)):
        answers.add([0, 1, 2], np.vstack([rows(0, 5), [[value, 0.0]]]).astype(np.float32), run)
    assert answers.departures().worst == pytest.approx(1e-5, rel=1e-3)


def test_rows_without_an_answer_are_infinitely_far_off_and_do_not_vote() -> None:
    answers = Answers()
    answers.add([0, 1], rows(1, 2), "right")
    answers.add([0, 1], np.array([[np.nan, 0], [2, 12]], np.float32), "one missing")
    answers.add([0, 1], "no memory", "refused")
    found = answers.departures()
    assert found.shares.tolist() == [0, 0, math.inf, 0, math.inf, math.inf]
    assert found.where(found.shares == 0).worst == 0
    assert found.where(np.array([False] * 4 + [True] * 2)).describe_worst() == "refused: no memory"
    nothing = Answers()
    nothing.add([0], "never", "only")
    assert nothing.departures().worst == math.inf


def test_rows_that_do_not_count_are_held_against_those_that_do() -> None:
    answers = Answers()
    answers.add([0], rows(0), "alone")
    for number in range(9):
        answers.add([0], rows(1), f"thread, run {number}", counts=False)
    assert answers.departures().shares.tolist() == [0.0, *[pytest.approx(0.1)] * 9]


def test_positions_are_blamed_only_for_what_follows_them() -> None:
    def answers(wrong: Callable[[int, int], bool]) -> Answers:
        made = Answers()
        for size in range(1, 9):
            made.add(range(size), rows(*(float(wrong(size, position)) for position in range(size))), f"size {size}")
        return made

    def blamed(wrong: Callable[[int, int], bool]) -> list[int]:
        made = answers(wrong).departures()
        truth = np.array([wrong(row.size, row.position) for row in made.rows])
        return wrong_positions(dataclasses.replace(made, shares=np.where(truth, 1.0, 0.0)), 0.5)

    assert blamed(lambda size, position: position == 2) == [2]
    assert blamed(lambda size, position: position in (1, 5)) == [1, 5]
    assert blamed(lambda size, position: size == 4) == []
    assert blamed(lambda size, position: size > 2) == []  # nearly all positions: not theirs
    assert blamed(lambda size, position: size == 8 and position == 7) == []  # one size: that size's fault


def test_numbers_as_ranges() -> None:
    assert ranges_text([3, 1, 2, 7, 9, 10]) == "1-3, 7, 9-10"
    assert ranges_text([5, 5]) == "5"
