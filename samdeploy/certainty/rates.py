"""Exact bounds of a rate of which `hits` of `n_images` were seen: Clopper and Pearson, Biometrika 26, 1934, 404-413.

`scipy.stats.binomtest` has the same ends, but takes whole numbers alone.
"""

from __future__ import annotations


def least_rate(hits: float, n_images: int, error: float) -> float:
    """A share that the true one is below with a probability of at most `error`."""
    from scipy.stats import beta

    return float(beta.ppf(error, hits, n_images - hits + 1)) if hits > 0 else 0.0


def greatest_rate(hits: float, n_images: int, error: float) -> float:
    """A share that the true one is above with a probability of at most `error`; 1 where nothing was seen."""
    from scipy.stats import beta

    return float(beta.isf(error, hits + 1, n_images - hits)) if hits < n_images else 1.0
