"""The clock: warm-up until stable, single images in random order, percentiles, and when no verdict can be had."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from samdeploy.evaluate.latency import clock
from samdeploy.evaluate.latency import measure as latency
from samdeploy.evaluate.latency.clock import WarmUp, waited_s, warm_up
from samdeploy.evaluate.latency.measure import LIMIT_S, Latency, latency_from, measure_latency, random_batches

IMAGES = np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1) * np.ones((1, 4, 4, 3), np.uint8)


class Timed:
    """A session whose n-th run takes `seconds(n)` on a clock that nothing else moves; remembers what it was fed."""

    backend, device, precision = "pytorch", "cpu", "fp32"

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self._seconds = seconds
        self.fed: list[np.ndarray] = []
        self.now = 1000.0

    def run(self, batch: np.ndarray) -> np.ndarray:
        self.now += self._seconds(len(self.fed))
        self.fed.append(batch)
        return np.zeros((len(batch), 2), np.float32)

    def close(self) -> None: ...


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], float]], Timed]:
    def make(seconds: Callable[[int], float]) -> Timed:
        session = Timed(seconds)
        stopped = SimpleNamespace(perf_counter=lambda: session.now)
        monkeypatch.setattr(clock, "time", stopped)
        monkeypatch.setattr(latency, "time", stopped)
        monkeypatch.setattr(latency, "waited_s", lambda: 0.0)
        return session

    return make


def test_a_steady_engine(timed: Callable[..., Timed]) -> None:
    session = timed(lambda n: 0.002)
    found = measure_latency(session, IMAGES)
    # Windows of 50 ms are 25 or, by a rounding of the clock, 26 runs of 2 ms; three of them agree at once.
    assert found.warm_up_runs in range(75, 79)
    assert found.warm_up_settled
    assert found.runs == 300
    assert len(session.fed) == found.warm_up_runs + 300
    assert (found.p50_ms, found.p50_low_ms, found.p50_high_ms, found.max_ms) == pytest.approx((2.0,) * 4)
    assert found.steady
    assert found.noise == ""


def test_single_images_in_random_order(timed: Callable[..., Timed]) -> None:
    session = timed(lambda n: 0.002)
    measure_latency(session, IMAGES)
    assert {batch.shape for batch in session.fed} == {(1, 4, 4, 3)}
    order = [int(batch[0, 0, 0, 0]) for batch in session.fed[:7]]
    assert sorted(order) == list(range(7))
    assert order != list(range(7))


def test_percentiles_of_the_timed_runs_alone(timed: Callable[..., Timed]) -> None:
    # The warm-up at 5 ms; of the timed runs 3 % take 50 ms, 4 % 20 ms, 5 % 10 ms, the rest 5 ms.
    def seconds(n: int) -> float:
        place = (n - 40) % 100
        return 0.005 if n < 40 or place >= 12 else 0.05 if place < 3 else 0.02 if place < 7 else 0.01

    found = measure_latency(timed(seconds), IMAGES)
    assert found.warm_up_runs in range(30, 34)
    assert (found.p50_ms, found.p90_ms, found.p95_ms, found.p99_ms, found.max_ms) == pytest.approx((5, 10, 20, 50, 50))


def test_the_warm_up_waits_until_the_engine_is_stable(timed: Callable[..., Timed]) -> None:
    # A GPU that raises its clock: each run is 1 % faster than the one before, from 20 ms down to 2 ms.
    session = timed(lambda n: max(0.002, 0.020 * 0.99**n))
    found = measure_latency(session, IMAGES)
    assert found.warm_up_settled
    assert found.warm_up_runs > 230
    assert found.max_ms < 2.1


def test_a_warm_up_that_never_settles_says_so(timed: Callable[..., Timed]) -> None:
    # Twice as fast with each window.
    session = timed(lambda n: 0.05 if n // 10 % 2 else 0.02)
    found = measure_latency(session, IMAGES)
    assert not found.warm_up_settled
    assert found.warm_up_s == pytest.approx(3, abs=0.5)


def test_the_interval_of_the_median_covers_it() -> None:
    """At least 95 % of the intervals hold the true median: 400 skewed samples, within 3 standard errors."""
    samples = np.random.default_rng(5).lognormal(0, 0.5, (400, 40))
    found = [latency_from(sample.tolist(), WarmUp(1, 0.1, True)) for sample in samples]
    hits = sum(each.p50_low_ms <= 1.0 <= each.p50_high_ms for each in found)
    assert 380 - 3 * (400 * 0.95 * 0.05) ** 0.5 <= hits < 400


def test_a_slow_network_is_not_timed_for_ever(timed: Callable[..., Timed]) -> None:
    # A second each: the limit of 10 s would be over after 10 runs, but percentiles of fewer than 30 say little.
    session = timed(lambda n: 1.0)
    found = measure_latency(session, IMAGES)
    assert (found.warm_up_runs, found.runs) == (3, 30)
    # 100 ms each: the limit decides.
    assert measure_latency(timed(lambda n: 0.1), IMAGES).runs == pytest.approx(LIMIT_S / 0.1, abs=1)


def test_a_fast_network_is_timed_for_half_a_second(timed: Callable[..., Timed]) -> None:
    assert measure_latency(timed(lambda n: 0.0001), IMAGES).runs == pytest.approx(5000, abs=2)


def test_a_tenth_of_slow_runs_refuses_the_verdict(timed: Callable[..., Timed]) -> None:
    found = measure_latency(timed(lambda n: 0.010 if n % 8 == 0 else 0.005), IMAGES)
    assert found.spread == pytest.approx(2)
    assert not found.steady
    assert found.noise == "too noisy for a verdict, the last of 3 tries: p90 is 2.00 times p50 (at most 1.5)"


def test_drift_refuses_the_verdict(timed: Callable[..., Timed]) -> None:
    # A GPU that grows hot: 40 % slower from first to last run, and so again with each try.
    found = measure_latency(timed(lambda n: 0.005 * (1 + 0.4 * (max(0, n - 32) % 300) / 300)), IMAGES)
    assert (found.tries, found.spread < 1.5) == (3, True)
    assert found.drift_percent == pytest.approx(100 * 0.4 * 2 / 3 / 1.2, abs=1)
    assert re.search(r"last of 3 tries: the median moved by \+2[12]\.\d % \(at most 10\)", found.noise)


def test_a_drift_that_ends_is_tried_again(timed: Callable[..., Timed]) -> None:
    """Another program ends while the clock runs: the figures are those of the run after it, and say that it is one."""
    found = measure_latency(timed(lambda n: 0.008 if n < 200 else 0.005), IMAGES)
    assert (found.tries, found.steady, found.runs) == (2, True, 300)
    assert (found.p50_ms, found.max_ms) == pytest.approx((5, 5))


def test_a_slow_network_is_not_tried_again(timed: Callable[..., Timed]) -> None:
    # 300 runs of 20 to 28 ms: more than half of the time that there is.
    found = measure_latency(timed(lambda n: 0.020 if n < 200 else 0.028), IMAGES)
    assert (found.tries, found.steady) == (1, False)


def test_waiting_for_a_core_refuses_the_verdict(timed: Callable[..., Timed], monkeypatch: pytest.MonkeyPatch) -> None:
    # 300 runs of 5 ms, of which the threads wait for half a second: evenly, so that neither spread nor drift shows it.
    waits = iter([3.0, 3.5])
    session = timed(lambda n: 0.005)
    monkeypatch.setattr(latency, "waited_s", lambda: next(waits))
    found = measure_latency(session, IMAGES)
    assert (found.spread, found.drift_percent) == pytest.approx((1, 0))
    assert found.waited_percent == pytest.approx(100 * 0.5 / 1.5)
    assert "its threads together waited 0.33 s per second for a core (at most 0.25)" in found.noise


def test_the_wait_is_the_schedulers() -> None:
    if waited_s() is None:
        pytest.skip("this system has no /proc/<pid>/schedstat")
    allowed = os.sched_getaffinity(0)
    core = {min(allowed)}
    spin = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); print(flush=True)\nwhile True: pass"
    rivals = [subprocess.Popen([sys.executable, "-c", spin, str(*core)], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for rival in rivals:
            assert rival.stdout is not None
            rival.stdout.readline()
        os.sched_setaffinity(0, core)
        before, worked, start = waited_s(), time.thread_time(), time.perf_counter()
        while time.perf_counter() < start + 0.6:
            pass
        after, worked, seconds = waited_s(), time.thread_time() - worked, time.perf_counter() - start
    finally:
        os.sched_setaffinity(0, allowed)
        for rival in rivals:
            rival.kill()
            rival.communicate()
    # Of three that want one core each gets about a third, and waits for the rest.
    assert before is not None and after is not None
    assert worked < 0.35
    assert after - before == pytest.approx(seconds - worked, abs=0.1)


def test_the_real_clock_counts_real_time() -> None:
    session = Timed(lambda n: 0.0)
    plain = session.run

    def slow(batch: np.ndarray) -> np.ndarray:
        time.sleep(0.002)
        return plain(batch)

    session.run = slow  # type: ignore[method-assign]
    assert measure_latency(session, IMAGES).p50_ms >= 2.0


def test_a_warm_up_ends_with_its_time() -> None:
    growing = (1.1**power for power in itertools.count())
    start = time.perf_counter()
    found = warm_up(lambda _: time.sleep(0.001) or next(growing), [None], 0.2)
    assert not found.settled
    assert 0.2 <= time.perf_counter() - start < 2


@pytest.mark.parametrize(("size", "replaced"), [(4, False), (16, True)])
def test_batches_hold_real_images_in_random_order(size: int, replaced: bool) -> None:
    batches = random_batches(IMAGES, size)
    assert len(batches) == 2
    for batch in batches:
        assert batch.shape == (size, 4, 4, 3)
        assert batch.flags.c_contiguous
        found = batch[:, 0, 0, 0]
        assert set(found) <= set(range(7))
        assert (len(set(found)) < size) == replaced
    assert (batches[0] != batches[1]).any()


def test_the_json_holds_every_figure_and_the_refusal() -> None:
    found = Latency(
        p50_ms=1.0, p90_ms=1.75, p95_ms=2.0, p99_ms=3.0, max_ms=4.0, runs=300, p50_low_ms=0.9, p50_high_ms=1.1,
        drift_percent=0.0, warm_up_runs=30, warm_up_s=0.2, warm_up_settled=True,
    )  # fmt: skip
    assert found.to_json() == {
        "p50_ms": 1.0, "p90_ms": 1.75, "p95_ms": 2.0, "p99_ms": 3.0, "max_ms": 4.0, "runs": 300, "p50_low_ms": 0.9,
        "p50_high_ms": 1.1, "drift_percent": 0.0, "warm_up_runs": 30, "warm_up_s": 0.2, "warm_up_settled": True,
        "waited_percent": None, "tries": 1, "spread": 1.75, "steady": False,
        "noise": "too noisy for a verdict: p90 is 1.75 times p50 (at most 1.5)",
    }  # fmt: skip
    assert replace(found, p90_ms=1.5).to_json()["noise"] == ""
