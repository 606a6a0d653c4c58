"""Whether answers are still spread as they were on validation images.

The *population stability index* of shares a (now) and e (before) over B bins is sum((a - e) * ln(a / e)): 0 where they
are equal, and by custom a small shift from 0.1 and a large one from 0.25 (N. Siddiqi, "Credit Risk Scorecards", 2006).
Of few images it is large by chance: where nothing has changed, it is spread as (1/n + 1/m) times a chi-square variable
with B - 1 degrees of freedom, for n images now and m before (B. Yurdakul, J. Naranjo, "Statistical properties of the
population stability index", Journal of Risk Model Validation 14(4), 2020).
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from samdeploy.arrays import Float64Array, Int64Array

# Answers that are compared; older ones are forgotten.
WINDOW = 2000
# Fewer say nothing.
LEAST = 100
_NORMAL_95 = 1.6449


def stability_index(now: Int64Array, before: Int64Array) -> float:
    """The index of two lists of counts, int64 [B] each, of at least one image each.

    Half an image is added to every bin, so that an empty one does not make it infinite.
    """
    a, e = (_shares(counts) for counts in (now, before))
    return float(((a - e) * np.log(a / e)).sum())


def index_by_chance(now: Int64Array, before: Int64Array) -> float:
    """What the index stays below in 95 of 100 cases where nothing has changed.

    The chi-square variable is taken as normal, with the same mean and variance.  Bins that are empty in both count for
    nothing.
    """
    freedom = int(((now + before) > 0).sum()) - 1
    chi = freedom + _NORMAL_95 * math.sqrt(2 * max(freedom, 0))
    return float((1 / now.sum() + 1 / before.sum()) * chi)


def _shares(counts: Int64Array) -> Float64Array:
    smoothed: Float64Array = counts.astype(np.float64) + 0.5
    shares: Float64Array = smoothed / smoothed.sum()
    return shares


class Window:
    """How often each bin was among the newest answers."""

    def __init__(self, bins: int, size: int = WINDOW) -> None:
        self.counts = np.zeros(bins, np.int64)
        self._newest: deque[int] = deque(maxlen=size)

    def add(self, bins: Int64Array) -> None:
        """Take in some answers, oldest first: int64 [n], each its bin."""
        for value in bins.tolist():
            if len(self._newest) == self._newest.maxlen:
                self.counts[self._newest[0]] -= 1
            self._newest.append(value)
            self.counts[value] += 1

    def __len__(self) -> int:
        return len(self._newest)
