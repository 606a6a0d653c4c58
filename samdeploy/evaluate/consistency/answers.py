"""Answers of one engine to the same images under different circumstances, and how far they depart from each other.

No reference is needed: whatever the circumstances, one image has one answer.  What most circumstances agree on is
taken for it, and each answer is held against that.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samdeploy.arrays import Float32Array, Float64Array
from samdeploy.backends.difference import with_median_floor


class Answers:
    """Rows of logits with the image that each belongs to and the circumstances it was given in."""

    def __init__(self) -> None:
        self._rows: list[Float32Array] = []
        self._circumstances: list[Circumstance] = []
        # What the engine said where it gave no answer, by the name of the run.
        self.refusals: dict[str, str] = {}

    def add(self, picks: Sequence[int], logits: Float32Array | str, run: str, *, counts: bool = True) -> None:
        """Enter the answer to one batch.

        Args:
            picks: the image at each position of the batch.
            logits: float32 [len(picks), K], copied; or what the engine said instead of answering.
            run: names the batch in messages, such as "batch size 7".
            counts: False: these rows are held against the others' answer, and have no part in forming it.
        """
        if isinstance(logits, str):
            self.refusals.setdefault(run, logits)
            rows = np.full((len(picks), 1), np.nan, np.float32)
        else:
            rows = logits.astype(np.float32, copy=True)
        self._rows.extend(rows)
        self._circumstances.extend(
            Circumstance(int(image), len(picks), position, run, counts) for position, image in enumerate(picks)
        )

    def sizes(self) -> set[int]:
        """The batch sizes that were run."""
        return {circumstance.size for circumstance in self._circumstances}

    def departures(self) -> Departures:
        """How far each row is from what the rows of its image agree on.

        That is the median, class by class, over batch sizes, of the median over the rows of a size: each size has one
        vote, so that a size which was tried often and answers wrongly is outvoted all the same.
        """
        by_image: dict[int, list[int]] = {}
        for index, circumstance in enumerate(self._circumstances):
            by_image.setdefault(circumstance.image, []).append(index)
        agreed = {image: self._agreed(rows) for image, rows in sorted(by_image.items())}
        known = [answer for answer in agreed.values() if answer is not None]
        ranges = with_median_floor(np.array([np.ptp(answer) for answer in known])) if known else ()
        names = [image for image, answer in agreed.items() if answer is not None]
        spans = dict(zip(names, ranges, strict=True))
        shares = np.full(len(self._rows), np.inf)
        for index, (row, circumstance) in enumerate(zip(self._rows, self._circumstances, strict=True)):
            answer = agreed[circumstance.image]
            if answer is not None and row.shape == answer.shape and np.isfinite(row).all():
                shares[index] = np.abs(row - answer).max() / spans[circumstance.image]
        contrasts = [
            float(np.abs(one - other).max()) / max(spans[names[index]], spans[names[index + 1]])
            for index, (one, other) in enumerate(itertools.pairwise(known))
        ]
        return Departures(
            shares,
            tuple(self._circumstances),
            float(np.median(contrasts)) if contrasts else np.inf,
            dict(self.refusals),
        )

    def _agreed(self, rows: Sequence[int]) -> Float64Array | None:
        """float64 [K] of one image's rows; None where none of them is finite."""
        votes: dict[int, list[Float32Array]] = {}
        for index in rows:
            circumstance, row = self._circumstances[index], self._rows[index]
            if circumstance.counts and np.isfinite(row).all():
                votes.setdefault(circumstance.size, []).append(row)
        if not votes:
            return None
        medians = [np.median(np.stack(rows).astype(np.float64), axis=0) for rows in votes.values()]
        answer: Float64Array = np.median(medians, axis=0)
        return answer


@dataclass(frozen=True, slots=True)
class Circumstance:
    """Where one row comes from: its image, the size of its batch, its position there, and the run's name."""

    image: int
    size: int
    position: int
    run: str
    counts: bool


@dataclass(frozen=True, slots=True)
class Departures:
    """How far each row is from its image's answer.

    Attributes:
        shares: float64 [rows], largest difference over the classes as a share of the range of the image's logits,
            or of the median image's where that is larger; infinite where a row is missing or not finite.
        rows: the circumstances of each.
        contrast: how far two images' answers are from each other, the median over neighbours, on the same scale;
            where it is no larger than what is allowed, exchanged rows cannot be seen.  Infinite for fewer than two.
        refusals: run -> what the engine said where it gave no answer.
    """

    shares: Float64Array
    rows: tuple[Circumstance, ...]
    contrast: float
    refusals: dict[str, str]

    @property
    def worst(self) -> float:
        """The largest share; 0 where there are no rows."""
        return float(self.shares.max(initial=0.0))

    def where(self, chosen: NDArray[np.bool_]) -> Departures:
        """The same of some rows only."""
        rows = tuple(row for row, keep in zip(self.rows, chosen, strict=True) if keep)
        return Departures(self.shares[chosen], rows, self.contrast, self.refusals)

    def describe_worst(self) -> str:
        """Where the worst row comes from, and what the engine said there."""
        row = self.rows[int(self.shares.argmax())]
        said = self.refusals.get(row.run)
        return f"{row.run}: {said}" if said else f"{row.run}, position {row.position}"


def wrong_positions(departures: Departures, allowed: float) -> list[int]:
    """Positions that answer wrongly at most batch sizes that have them; none where it is not the position.

    A position is to blame if it departs at two batch sizes at least and at more than half of all; not if that holds
    for more than half of the positions, for then it is something else.
    """
    tried: dict[int, set[int]] = {}
    wrong: dict[int, set[int]] = {}
    for share, row in zip(departures.shares, departures.rows, strict=True):
        tried.setdefault(row.position, set()).add(row.size)
        if share > allowed:
            wrong.setdefault(row.position, set()).add(row.size)
    found = sorted(
        position for position, sizes in wrong.items() if len(sizes) >= 2 and 2 * len(sizes) > len(tried[position])
    )
    return found if 2 * len(found) <= len(tried) else []


def ranges_text(numbers: Sequence[int]) -> str:
    """ "1-3, 7" of 1, 2, 3, 7."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
