"""How far answers are apart, each on the scale of its own image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samdeploy.arrays import Float64Array

# Images that are looked at together: of a large test set, not more than the answers themselves stand in memory.
_ROWS = 4096


def image_ranges(expected: NDArray[np.floating], flat: float = 1.0) -> Float64Array:
    """The scale on which each image's answer is judged; float64 [N].

    That is the range of its own values, largest minus smallest, or the median image's where that is larger.  Without
    squashing, the logits of single images can be a hundred times those of all others: a range over all of them would
    let any error pass in the others.  And an image whose values are nearly equal must not be judged by a scale of
    nearly nothing.

    Args:
        expected: [N, ...], finite, N >= 1.
        flat: where both ranges are 0.
    """
    rows = expected.reshape(len(expected), -1)
    return with_median_floor(rows.max(axis=1).astype(np.float64) - rows.min(axis=1), flat)


def with_median_floor(ranges: Float64Array, flat: float = 1.0) -> Float64Array:
    """`image_ranges` of ranges that are known, float64 [N]."""
    scale: Float64Array = np.maximum(ranges, np.median(ranges))
    scale[scale == 0] = flat
    return scale


def difference_shares(
    found: NDArray[np.floating], expected: NDArray[np.floating], ranges: Float64Array
) -> Float64Array:
    """Each image's largest difference as a share of `ranges`; float64 [N], infinite where not finite.

    Args:
        found, expected: [N, ...], of one shape; expected is finite.
        ranges: float64 [N], from `image_ranges`.
    """
    shares = np.empty(len(expected))
    for start in range(0, len(expected), _ROWS):
        rows = slice(start, start + _ROWS)
        with np.errstate(invalid="ignore"):  # infinite minus finite
            off = np.abs(found[rows].astype(np.float64) - expected[rows]).reshape(len(shares[rows]), -1).max(axis=1)
        shares[rows] = off / ranges[rows]
    shares[~np.isfinite(shares)] = np.inf
    return shares
