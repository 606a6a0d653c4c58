"""The clock: single pictures, warm-up outside, percentiles of the timed runs, an end for slow networks."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from samdeploy.evaluate import latency as latency_file
from samdeploy.evaluate.latency import LIMIT_S, measure_latency

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
        monkeypatch.setattr(latency_file, "time", SimpleNamespace(perf_counter=lambda: session.now))
        return session

    return make


def test_single_pictures_in_turn(timed: Callable[..., Timed]) -> None:
    session = timed(lambda n: 0.001)
    assert measure_latency(session, IMAGES).runs == 300
    assert len(session.fed) == 20 + 300
    assert {batch.shape for batch in session.fed} == {(1, 4, 4, 3)}
    pictures = [int(batch[0, 0, 0, 0]) for batch in session.fed[20:]]
    assert pictures[:9] == [0, 1, 2, 3, 4, 5, 6, 0, 1]


def test_percentiles_of_the_timed_runs_alone(timed: Callable[..., Timed]) -> None:
    # Twenty warm-up runs of 100 ms must not show; of the 300 timed ones 3 % take 8 ms, 7 % take 4 ms, the rest 1 ms.
    def seconds(n: int) -> float:
        place = (n - 20) % 100
        return 0.1 if n < 20 else 0.008 if place < 3 else 0.004 if place < 10 else 0.001

    found = measure_latency(timed(seconds), IMAGES)
    assert (found.p50_ms, found.p95_ms, found.p99_ms) == pytest.approx((1.0, 4.0, 8.0))


def test_the_real_clock_counts_real_time() -> None:
    import time

    session = Timed(lambda n: 0.0)
    plain = session.run

    def slow(batch: np.ndarray) -> np.ndarray:
        time.sleep(0.002)
        return plain(batch)

    session.run = slow  # type: ignore[method-assign]
    assert measure_latency(session, IMAGES).p50_ms >= 2.0


def test_a_slow_network_is_not_timed_for_ever(timed: Callable[..., Timed]) -> None:
    # A second each: the limit of 10 s would be over after 10 runs, but percentiles of fewer than 30 say little.
    session = timed(lambda n: 1.0)
    assert measure_latency(session, IMAGES).runs == 30
    assert len(session.fed) == 20 + 30
    # 100 ms each: the limit decides.
    found = measure_latency(timed(lambda n: 0.1), IMAGES)
    assert found.runs == pytest.approx(LIMIT_S / 0.1, abs=1)
