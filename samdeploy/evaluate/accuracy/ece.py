"""Whether a classifier is right as often as it says it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 15
# Rows whose exponentials stand in memory at once.
_ROWS = 4096


def expected_calibration_error(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Mean distance between confidence and accuracy, in percentage points.

    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, equation 5: the
    highest softmax probabilities fall into 15 bins ((m-1)/15, m/15] of equal width; of each bin, the distance between
    its mean probability and its share of right answers, weighted with its share of the images.

    Args:
        logits: float32 [N, K], finite, N >= 1.
        labels: int64 [N].
    """
    confidence = np.empty(len(logits))
    for start in range(0, len(logits), _ROWS):
        rows = logits[start : start + _ROWS].astype(np.float64)
        # The highest probability is exp(0) over the sum of all exponentials relative to it.
        confidence[start : start + _ROWS] = 1 / np.exp(rows - rows.max(axis=1, keepdims=True)).sum(axis=1)
    is_right = logits.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    distances = np.bincount(bins, weights=is_right - confidence, minlength=BINS)  # of sums, hence weighted already
    return float(100 * np.abs(distances).sum() / len(logits))
