"""Which of two networks is faster: single images, in turns, so that what disturbs one disturbs the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from samdeploy.arrays import UInt8Array
from samdeploy.backends.session import Session
from samdeploy.bench.turns import take_turns
from samdeploy.errors import BackendUnavailable, first_line
from samdeploy.evaluate.latency.clock import host_timer, waited_s, warm_up
from samdeploy.evaluate.latency.measure import (
    MAX_WAITED_PERCENT,
    WARM_UP_LIMIT_S,
    median_interval,
    random_batches,
)
from samdeploy.evaluate.test_set.prepared import PreparedImages
from samdeploy.progress import progress_bar

# Images that each network is fed in turn.
SAMPLE = 64


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of single images, one value for each round: host memory to host memory."""

    p50_ms: float
    p10_ms: float
    p90_ms: float


@dataclass(frozen=True, slots=True)
class LatencyRatio:
    """How many times as long B takes as A, from the ratios within each round.

    Attributes:
        a, b: times of each.
        rounds: in which each took a turn.
        median, low, high: of the ratios, and the 95 % interval of their median.
        waited_percent: time that the process's threads stood ready without a core, of the whole; None: not known.
    """

    a: Times
    b: Times
    rounds: int
    median: float
    low: float
    high: float
    waited_percent: float | None

    @property
    def noise(self) -> str:
        """Why the figures are partly other programs'; "" if they are not."""
        if self.waited_percent is None or self.waited_percent <= MAX_WAITED_PERCENT:
            return ""
        return (
            f"threads together waited {self.waited_percent / 100:.2f} s per second for a core that other programs held "
            f"(at most {MAX_WAITED_PERCENT / 100:g}): measure again on a quiet machine"
        )


def compare_latency(sessions: Mapping[str, Session], images: Mapping[str, PreparedImages], rounds: int) -> LatencyRatio:
    """Time "A" and "B" on the same images at batch 1, each warmed up first.

    Args:
        sessions, images: "A" and "B" -> its engine, and what it is fed.
        rounds: at least `LEAST_ROUNDS`.

    Raises:
        BackendUnavailable: one of them failed.
    """
    count = min(SAMPLE, len(images["A"]))
    chosen = np.linspace(0, len(images["A"]) - 1, count).round().astype(np.int64)
    runs = {name: _run(sessions[name], random_batches(images[name].take(chosen))) for name in sessions}
    with progress_bar("latency, in turns", 2 * rounds) as advance:
        for name, run in runs.items():
            try:
                warm_up(host_timer(run), range(count), WARM_UP_LIMIT_S)
            except Exception as error:  # whatever a runtime throws
                raise BackendUnavailable(f"{name}: its latency cannot be measured: {first_line(error)}") from error
        waited, start = waited_s(), time.perf_counter()
        turns = take_turns(runs, range(count), rounds, lambda name: advance(1, name))
        seconds, waited_after = time.perf_counter() - start, waited_s()
    for name, reason in turns.died.items():
        raise BackendUnavailable(f"{name}: its latency cannot be measured: {reason}")
    ratios = [theirs / ours for ours, theirs in zip(turns.times["A"], turns.times["B"], strict=True)]
    low, high = median_interval(ratios)
    is_known = waited is not None and waited_after is not None
    return LatencyRatio(
        a=_times(turns.times["A"]),
        b=_times(turns.times["B"]),
        rounds=rounds,
        median=float(np.median(ratios)),
        low=low,
        high=high,
        waited_percent=100 * max(0.0, (waited_after or 0) - (waited or 0)) / seconds if is_known else None,
    )


def _run(session: Session, inputs: Sequence[UInt8Array]) -> Callable[[int], object]:
    return lambda index: session.run(inputs[index])


def _times(values: Sequence[float]) -> Times:
    p50, p10, p90 = (float(value) for value in np.percentile(values, [50, 10, 90]))
    return Times(p50, p10, p90)
