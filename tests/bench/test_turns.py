"""Engines in turns: who runs when, what is timed, and what a death leaves behind."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from samdeploy.bench import turns
from samdeploy.bench.turns import Ratio, ratio, take_turns


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PAUSE_S", 0.0)


def test_every_engine_in_every_round_and_the_order_moves_on(sleeper: Callable, images: np.ndarray) -> None:
    order: list[str] = []
    sessions = {name: sleeper(0.03) for name in "abc"}
    found = take_turns({name: session.run for name, session in sessions.items()}, [images[:1]], 4, order.append)
    assert "".join(order) == "abc" + "bca" + "cab" + "abc"
    assert {name: len(times) for name, times in found.times.items()} == {"a": 4, "b": 4, "c": 4}
    assert found.died == {}
    # One untimed run and, since it lasts longer than a turn should, one timed one.
    assert [len(session.fed) for session in sessions.values()] == [8, 8, 8]


def test_the_untimed_run_is_not_in_the_figure(images: np.ndarray) -> None:
    count = 0

    def first_of_two_is_slow(batch: np.ndarray) -> None:
        nonlocal count
        count += 1
        time.sleep(0.1 if count % 2 else 0.025)

    (times,) = take_turns({"a": first_of_two_is_slow}, [images], 3).times.values()
    assert 25 <= min(times) <= max(times) < 90


def test_a_fast_engine_runs_several_times_a_turn_and_the_median_counts(images: np.ndarray) -> None:
    fed: list[int] = []

    def quick(batch: np.ndarray) -> None:
        fed.append(len(fed))
        time.sleep(0.018 if len(fed) % 7 == 0 else 0.0005)

    (times,) = take_turns({"a": quick}, [images], 2).times.values()
    assert len(fed) > 8
    assert max(times) < 15


def test_an_engine_that_dies_leaves_the_others_alone(sleeper: Callable, images: np.ndarray) -> None:
    dying, sound = sleeper(0.03, dies_at=5), sleeper(0.03)
    found = take_turns({"dying": dying.run, "sound": sound.run}, [images[:1]], 5)
    assert found.died == {"dying": "died in round 3: the GPU fell off the bus"}
    assert [len(found.times[name]) for name in ("dying", "sound")] == [2, 5]
    assert len(dying.fed) == 5  # it is not asked again


def test_the_ratio_is_taken_within_the_rounds() -> None:
    # Twice as fast in every round, on a machine that another program slows down fourfold in half of them.
    base = [10.0, 40.0] * 10
    assert ratio([5.0, 20.0] * 10, base) == Ratio(2.0, 2.0, 2.0)
    found = ratio([10.0, 20.0, 40.0], [20.0, 20.0, 20.0])
    assert found is not None
    assert (found.median, found.p10, found.p90) == pytest.approx((1.0, 0.6, 1.8))
    assert ratio([5.0], base) == Ratio(2.0, 2.0, 2.0)
    assert ratio([], base) is None
