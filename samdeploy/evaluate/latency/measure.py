"""How long one image takes, and whether the answer can be believed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from samdeploy.arrays import UInt8Array
from samdeploy.backends.session import Session
from samdeploy.evaluate.latency.clock import Timer, WarmUp, host_timer, time_runs, waited_s, warm_up

T = TypeVar("T")

# Enough for a p99 that is not simply the slowest run, and half a second, so that a fast network, too, is seen for
# longer than one time slice of the scheduler; the limit keeps a slow one from holding up the verdict.
RUNS = 300
MIN_RUNS = 30
LEAST_S = 0.5
LIMIT_S = 10.0
WARM_UP_LIMIT_S = 3.0
# A drift or a slow tail is often over in a second; what was timed until then was a longer warm-up.  How often the clock
# was started stands in the result: the first steady run of a few is a choice, if one by steadiness and not by speed.
TRIES = 3

# Of the interval in which the median lies.
CONFIDENCE = 0.95

# Where a run is too noisy for a verdict.  Beside programs that want one whole core of two, or both, an engine's median
# was 1.4 to 3.5 times that of a quiet machine, and spread and drift let half of the runs pass: they were steadily slow.
# What showed all of them is the time that the threads waited for a core (benchmarks/evaluate/waiting.py, 12 runs of
# each kind).  Alone it is 1 to 16 % of the run; beside a fifth of a core 13 to 41 %, with a median of 0.95 times that
# of a quiet machine; beside half a core 26 to 52 % and 1.08 times; beside a whole one 61 to 98 % and 1.65 times.  A
# quarter lies above every run alone and below every run beside half a core; what it lets pass, spread and drift judge.
# A median that moves by a tenth within one run cannot be known to a tenth.
MAX_SPREAD = 1.5
MAX_DRIFT_PERCENT = 10.0
MAX_WAITED_PERCENT = 25.0

# Distinct inputs of a batch size that are made before the clock starts.
_MOST_BATCHES = 32


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of single runs, after the warm-up.

    Attributes:
        p50_ms, p90_ms, p95_ms, p99_ms, max_ms: percentiles over all runs; of fewer than 100 runs p99 is the slowest.
        runs: how many were timed.
        p50_low_ms, p50_high_ms: the median's 95 % confidence interval, from order statistics; it takes the runs for
            independent, so read it together with `drift_percent`.
        drift_percent: by how much the median of the last third differs from that of the first, of the whole median.
        warm_up_runs, warm_up_s: what the warm-up took.
        warm_up_settled: whether its last windows agreed within 5 %.
        waited_percent: time that the process's threads, all together, stood ready without a core, of the run's
            duration; None where the system does not say.
        tries: how often the clock was started until a run was steady, at most `TRIES`; the figures are of the last.
    """

    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    runs: int
    p50_low_ms: float
    p50_high_ms: float
    drift_percent: float
    warm_up_runs: int
    warm_up_s: float
    warm_up_settled: bool
    waited_percent: float | None = None
    tries: int = 1

    @property
    def spread(self) -> float:
        """p90 / p50: 1 for a run without noise."""
        return self.p90_ms / self.p50_ms

    @property
    def noise(self) -> str:
        """Why no verdict on latency can rest on this run, in words with the figures; "" if it is steady enough."""
        reasons = []
        if self.spread > MAX_SPREAD:
            reasons.append(f"p90 is {self.spread:.2f} times p50 (at most {MAX_SPREAD})")
        if abs(self.drift_percent) > MAX_DRIFT_PERCENT:
            reasons.append(f"the median moved by {self.drift_percent:+.1f} % (at most {MAX_DRIFT_PERCENT:.0f})")
        if self.waited_percent is not None and self.waited_percent > MAX_WAITED_PERCENT:
            reasons.append(
                f"its threads together waited {self.waited_percent / 100:.2f} s per second for a core (at most "
                f"{MAX_WAITED_PERCENT / 100:g})"
            )
        last = f", the last of {self.tries} tries" if self.tries > 1 else ""
        return f"too noisy for a verdict{last}: {'; '.join(reasons)}" if reasons else ""

    @property
    def steady(self) -> bool:
        """Whether a verdict on latency may rest on this run."""
        return not self.noise

    def to_json(self) -> dict[str, Any]:
        """All figures, `steady` and the reason."""
        return {**dataclasses.asdict(self), "spread": self.spread, "steady": self.steady, "noise": self.noise}


def measure_latency(session: Session, images: UInt8Array) -> Latency:
    """Time single images, host memory to host memory, one call at a time, real images in random order.

    Args:
        session: an open engine.
        images: uint8 [N, H, W, 3].
    """
    return measure(host_timer(session.run), random_batches(images))


def measure(timer: Timer[T], inputs: Sequence[T], *, runs: int | None = None, limit_s: float | None = None) -> Latency:
    """Warm up until stable, then time single runs; again, up to `TRIES` times, where they drift or spread.

    Args:
        timer: gives the milliseconds of one run.
        inputs: what it is given, in turns.
        runs: timed, at least; None: `RUNS`.
        limit_s: once it is over, `MIN_RUNS` runs are enough; None: `LIMIT_S`.
    """
    import scipy.stats  # noqa: F401 - before the warm-up: loading it takes a second, and fills the caches with itself

    limit_s = LIMIT_S if limit_s is None else limit_s
    warm = warm_up(timer, inputs, min(WARM_UP_LIMIT_S, limit_s))
    begin = time.perf_counter()
    for tries in range(1, TRIES + 1):
        waited, start = waited_s(), time.perf_counter()
        times = time_runs(
            timer,
            inputs,
            runs=RUNS if runs is None else runs,
            least_runs=MIN_RUNS,
            least_s=min(LEAST_S, limit_s),
            limit_s=limit_s,
        )
        now, waited_after = time.perf_counter(), waited_s()
        share = (
            None if waited is None or waited_after is None else 100 * max(0.0, waited_after - waited) / (now - start)
        )
        found = replace(latency_from(times, warm), waited_percent=share, tries=tries)
        # Programs that hold the cores do so for longer than this; and a slow network has had its time.
        others = share is not None and share > MAX_WAITED_PERCENT
        if found.steady or others or now - begin >= limit_s / 2:
            break
    return found


def latency_from(times: list[float], warm: WarmUp) -> Latency:
    """The figures of timed runs.

    Args:
        times: milliseconds, in the order of the runs; at least 6, or the median has no interval of 95 %.
        warm: what went before.
    """
    low, high = median_interval(times)
    p50, p90, p95, p99 = (float(value) for value in np.percentile(times, [50, 90, 95, 99]))
    third = max(1, len(times) // 3)
    drift = float(np.median(times[-third:]) - np.median(times[:third]))
    return Latency(
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        max_ms=max(times),
        runs=len(times),
        p50_low_ms=low,
        p50_high_ms=high,
        drift_percent=100 * drift / p50,
        warm_up_runs=warm.runs,
        warm_up_s=warm.seconds,
        warm_up_settled=warm.settled,
    )


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % confidence interval of the median of at least 6 values, from order statistics.

    W. J. Conover, Practical Nonparametric Statistics, 3rd edition, section 3.2.
    """
    from scipy.stats import quantile_test

    found = quantile_test(values, p=0.5).confidence_interval(CONFIDENCE)
    return float(found.low), float(found.high)


def random_batches(images: UInt8Array, size: int = 1, seed: int = 0) -> list[UInt8Array]:
    """Batches uint8 [size, H, W, 3] of images in random order, made before the clock starts.

    Real images, because zeros would let a processor skip work, and in random order, because neighbours in a data
    set are often alike.  Single images are views; each batch is an array of its own, C-contiguous.
    """
    order = np.random.default_rng(seed)
    if size == 1:
        return [images[index : index + 1] for index in order.permutation(len(images))]
    count = max(2, min(_MOST_BATCHES, len(images) // size))
    return [images[order.choice(len(images), size, replace=size > len(images))] for _ in range(count)]
