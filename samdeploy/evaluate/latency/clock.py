"""The clock that every figure comes from: warm up until stable, then time single calls, one at a time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
# Gives the milliseconds that one input took.
Timer = Callable[[T], float]

# A window of the warm-up: enough runs for a median, and enough time to see a processor change its clock, unless the
# network is so slow that a window would hold up the work.
WINDOW_RUNS, WINDOW_S, WINDOW_LIMIT_S = 10, 0.05, 0.5
# The warm-up is over once this many windows in a row have medians that differ by no more than this share.
AGREEING_WINDOWS, AGREEMENT = 3, 0.05


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What a warm-up took.

    Attributes:
        runs, seconds: until it ended.
        settled: whether the windows agreed; False if the time was over before they did.
    """

    runs: int
    seconds: float
    settled: bool


def host_timer(call: Callable[[T], object]) -> Timer[T]:
    """Time `call` by the host's clock; it must return only when the answer is there."""

    def timed(value: T) -> float:
        start = time.perf_counter()
        call(value)
        return (time.perf_counter() - start) * 1e3

    return timed


def warm_up(timer: Timer[T], inputs: Sequence[T], limit_s: float) -> WarmUp:
    """Run until the medians of three windows in a row agree within 5 %, or the time is over.

    A fixed number of runs would be too few where a GPU raises its clock or a runtime tunes itself, and wasted time
    everywhere else.
    """
    medians: list[float] = []
    runs, start = 0, time.perf_counter()
    while True:
        values: list[float] = []
        opened = time.perf_counter()
        while not _full(len(values), time.perf_counter() - opened):
            values.append(timer(inputs[runs % len(inputs)]))
            runs += 1
        medians.append(statistics.median(values))
        seconds, last = time.perf_counter() - start, medians[-AGREEING_WINDOWS:]
        settled = len(last) == AGREEING_WINDOWS and max(last) <= min(last) * (1 + AGREEMENT)
        if settled or seconds >= limit_s:
            return WarmUp(runs, seconds, settled)


def time_runs(
    timer: Timer[T], inputs: Sequence[T], *, runs: int, least_runs: int, least_s: float, limit_s: float
) -> list[float]:
    """Milliseconds of each run, the inputs taking turns.

    At least `runs` of them and for at least `least_s`; but once `limit_s` is over, `least_runs` are enough.
    """
    times: list[float] = []
    start = time.perf_counter()
    while True:
        times.append(timer(inputs[len(times) % len(inputs)]))
        seconds = time.perf_counter() - start
        if (len(times) >= runs and seconds >= least_s) or (len(times) >= least_runs and seconds >= limit_s):
            return times


def waited_s() -> float | None:
    """Seconds that this process's threads were ready to run and had no core, all of them together, so far.

    From Linux's schedstat (Documentation/scheduler/sched-stats.rst, /proc/<pid>/schedstat, second number); None where
    there is none.
    """
    total, found = 0, False
    for file in Path("/proc/self/task").glob("*/schedstat"):
        try:
            total += int(file.read_text().split()[1])
            found = True
        except (OSError, IndexError, ValueError):  # the thread has just ended
            continue
    return total / 1e9 if found else None


def _full(runs: int, seconds: float) -> bool:
    return runs > 0 and ((runs >= WINDOW_RUNS and seconds >= WINDOW_S) or seconds >= WINDOW_LIMIT_S)
