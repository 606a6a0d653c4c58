"""Several engines timed in one process, in turns: what disturbs one round disturbs all of it alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from samdeploy.arrays import UInt8Array
from samdeploy.errors import first_line

T = TypeVar("T")
Run = Callable[[UInt8Array], object]

# Threads of the engine before spin for a while after its last run; this long, or they take cores from the next one.
PAUSE_S = 0.05
# A turn's timed runs last about this long and its median counts, so that a millisecond is not one sample of itself.
TURN_MS = 20.0
MOST_RUNS_PER_TURN = 15


@dataclass(frozen=True, slots=True)
class Turns:
    """Milliseconds per batch.

    Attributes:
        times: name -> one value for each round; of an engine that died, those of the rounds before.
        died: name -> why.
    """

    times: dict[str, list[float]]
    died: dict[str, str]


def take_turns(
    runs: Mapping[str, Callable[[T], object]],
    batches: Sequence[T],
    rounds: int,
    on_turn: Callable[[str], None] | None = None,
) -> Turns:
    """Every engine takes a turn in each round: a pause, an untimed run, then timed ones.

    The order moves on by one place from round to round, so that nobody always follows the same engine.  An engine
    that fails is left out of the later rounds, and the others go on.

    Args:
        runs: name -> one run, which returns only when the answer is there.
        batches: uint8 [N, H, W, 3], in turns; or anything else that all of `runs` take.
        rounds: how many.
        on_turn: called with the name after each turn.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    died: dict[str, str] = {}
    names = list(runs)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            if name not in died:
                try:
                    times[name].append(_turn(runs[name], batches, number))
                except Exception as error:  # whatever a runtime throws: the others' figures are still wanted
                    died[name] = f"died in round {number + 1}: {first_line(error)}"
            if on_turn is not None:
                on_turn(name)
    return Turns(times, died)


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as fast as the base, from the ratios within each round.

    Attributes:
        median, p10, p90: over the rounds that both took part in.
    """

    median: float
    p10: float
    p90: float


def ratio(times: Sequence[float], base: Sequence[float]) -> Ratio | None:
    """Of an engine's times to the base's, round by round; None where no round has both."""
    ratios = [theirs / ours for ours, theirs in zip(times, base, strict=False)]
    if not ratios:
        return None
    p10, median, p90 = (float(value) for value in np.percentile(ratios, [10, 50, 90]))
    return Ratio(median, p10, p90)


def _turn(run: Callable[[T], object], batches: Sequence[T], number: int) -> float:
    time.sleep(PAUSE_S)
    run(batches[number % len(batches)])
    times: list[float] = []
    while not times or (sum(times) < TURN_MS and len(times) < MOST_RUNS_PER_TURN):
        batch = batches[(number + 1 + len(times)) % len(batches)]
        start = time.perf_counter()
        run(batch)
        times.append((time.perf_counter() - start) * 1e3)
    return float(np.median(times))
