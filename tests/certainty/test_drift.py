"""The population stability index, and what it is by chance."""

from __future__ import annotations

import math

import numpy as np
import pytest

from samdeploy.certainty.drift import Window, index_by_chance, stability_index


def test_the_index_of_known_counts() -> None:
    now, before = np.array([3000, 7000]), np.array([5000, 5000])
    expected = (0.3 - 0.5) * math.log(0.3 / 0.5) + (0.7 - 0.5) * math.log(0.7 / 0.5)
    assert stability_index(now, before) == pytest.approx(expected, rel=1e-3)
    assert stability_index(before, before) == 0
    assert math.isfinite(stability_index(np.array([10, 0]), np.array([0, 10])))


@pytest.mark.parametrize("bins", [2, 10, 200])
def test_where_nothing_has_changed_the_bound_holds_in_95_of_100_cases(bins: int) -> None:
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.full(bins, 5.0))
    above = 0
    for _ in range(1000):
        now, before = random.multinomial(2000, shares), random.multinomial(5000, shares)
        above += stability_index(now, before) > index_by_chance(now, before)
    assert 20 < above < 90


def test_a_window_forgets_what_is_old() -> None:
    window = Window(3, size=4)
    window.add(np.array([0, 0, 1]))
    assert (window.counts.tolist(), len(window)) == ([2, 1, 0], 3)
    window.add(np.array([2, 2, 2]))
    assert (window.counts.tolist(), len(window)) == ([0, 1, 3], 4)
