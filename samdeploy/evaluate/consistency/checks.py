"""The checks of an engine against itself, judged from its answers: passed, failed, or not finished."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from samdeploy.evaluate.consistency.answers import Departures, ranges_text, wrong_positions
from samdeploy.evaluate.consistency.questions import Asked
from samdeploy.evaluate.finite_json import finite_json

Outcome = Literal["passed", "failed", "not finished"]


@dataclass(frozen=True, slots=True)
class Check:
    """One question to the engine.

    Attributes:
        name: what was asked, such as "batch sizes".
        outcome: "not finished" where time was up, or where it could not be asked; never counted as passed.
        worst: the largest difference between answers that should be equal, as a share of the range of the image's
            logits, or of the median image's where that is larger; infinite where an answer is missing or not finite.
        allowed: the largest share that passes.
        runs: how many times the engine was run for it.
        detail: where the worst answer comes from; or what was left out.
    """

    name: str
    outcome: Outcome
    worst: float
    allowed: float
    runs: int
    detail: str

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"


@dataclass(frozen=True, slots=True)
class Consistency:
    """All checks of one engine.

    Attributes:
        checks: in the order they were made.
        batch_sizes: those that were tried, in order.
        bit_equal: whether equal batches gave equal bits each time they were repeated.  Nothing depends on it: kernels
            that add in any order are allowed to differ in their last bits.
        seconds: how long all took.
    """

    checks: tuple[Check, ...]
    batch_sizes: tuple[int, ...]
    bit_equal: bool
    seconds: float

    @property
    def passed(self) -> bool:
        """Every check was made to its end, and passed."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that found a difference."""
        return tuple(check for check in self.checks if check.outcome == "failed")

    @property
    def unfinished(self) -> tuple[Check, ...]:
        """The checks that were not made to their end and found nothing until then."""
        return tuple(check for check in self.checks if check.outcome == "not finished")

    @property
    def verdict(self) -> str:
        """In one line: consistent, not consistent and where, or what was not tried."""
        if self.failures:
            return "NOT CONSISTENT: " + "; ".join(f"{check.name}: {check.detail}" for check in self.failures)
        if self.unfinished:
            return "not all tried: " + "; ".join(f"{check.name}: {check.detail}" for check in self.unfinished)
        worst = max(check.worst for check in self.checks)
        within = f"within {worst:.1e} of the range" if worst else "equal answers"
        sizes = f", batch sizes {ranges_text(self.batch_sizes)}" if self.batch_sizes else ""
        return f"consistent: {len(self.checks)} checks{sizes}, {within}"

    def to_json(self) -> dict[str, Any]:
        """As documented in docs/files.md."""
        return {
            "passed": self.passed,
            "batch_sizes": list(self.batch_sizes),
            "bit_equal": self.bit_equal,
            "seconds": round(self.seconds, 3),
            "checks": finite_json(self.checks),
        }


def judge(name: str, asked: Asked, allowed: float) -> list[Check]:
    """One check; the text says from which run the worst answer is."""
    departures = asked.answers.departures()
    wrong = asked.broken or (departures.describe_worst() if departures.worst > allowed else "")
    return [_check(name, asked, departures, allowed, wrong)]


def judge_sizes(name: str, asked: Asked, allowed: float) -> list[Check]:
    """One check; the text says which batch sizes are wrong."""
    departures = asked.answers.departures()
    return [_check(name, asked, departures, allowed, _wrong_sizes(departures, departures.shares > allowed))]


def judge_sizes_and_positions(name: str, asked: Asked, allowed: float) -> list[Check]:
    """Two checks, `name` for the sizes, and "positions".

    What departs at most batch sizes that have a position is the position's fault, the rest the size's.
    """
    departures = asked.answers.departures()
    found = wrong_positions(departures, allowed)
    blamed = np.array([row.position in found for row in departures.rows], bool)
    by_size = departures.where(~blamed)
    by_position = departures.where(blamed if found else departures.shares <= allowed)
    where = f"wrong at position {ranges_text(found)}; worst at {by_position.describe_worst()}" if found else ""
    return [
        _check(name, asked, by_size, allowed, _wrong_sizes(by_size, by_size.shares > allowed)),
        _check("positions", asked, by_position, allowed, where),
    ]


def _wrong_sizes(departures: Departures, wrong: NDArray[np.bool_]) -> str:
    """Which batch sizes depart, and whether as a whole; "" where none does."""
    if not wrong.any():
        return ""
    rows, bad = Counter(row.size for row in departures.rows), Counter(row.size for row in departures.where(wrong).rows)
    whole = all(bad[size] == rows[size] for size in bad)
    extent = "in every row" if whole else f"in {sum(bad.values())} of {sum(rows[size] for size in bad)} rows"
    return f"wrong at batch size {ranges_text(list(bad))}, {extent}; worst at {departures.describe_worst()}"


def _check(name: str, asked: Asked, departures: Departures, allowed: float, wrong: str) -> Check:
    outcome: Outcome = "failed" if wrong else "not finished" if asked.left_out else "passed"
    detail = wrong or asked.left_out
    if outcome == "passed" and departures.contrast <= allowed:
        outcome = "not finished"
        detail = (
            f"the images' answers differ by {departures.contrast:.1e} of their range, no more than is allowed: "
            "exchanged ones could not be seen"
        )
    if wrong and asked.left_out:
        detail = f"{wrong}; {asked.left_out}"
    return Check(name, outcome, departures.worst, allowed, asked.runs, detail)
