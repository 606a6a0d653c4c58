"""Whether a classifier is right as often as it says it is.

With a *temperature* T, probabilities are the softmax of logits / T: above 1 they are less sure, and the order of the
classes never changes.  C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML
2017, section 4.2.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from samdeploy.arrays import BoolArray, Float32Array, Float64Array, Int64Array

BINS = 15
# Rows whose exponentials stand in memory at once.
_ROWS = 4096


def confidence(logits: Float32Array, temperature: float = 1.0) -> Float64Array:
    """float64 [N]: the highest probability of each row of float32 [N, K], finite."""
    # exp(0) over the sum of all exponentials relative to it.
    return np.concatenate([1 / np.exp(rows).sum(axis=1) for _, rows in _relative(logits, temperature)])


def confidence_bins(sure: Float64Array, bins: int) -> Int64Array:
    """int64 [N], of probabilities float64 [N]: in which of so many parts of [0, 1], each but the last open above."""
    return np.minimum((sure * bins).astype(np.int64), bins - 1)


def log_losses(logits: Float32Array, labels: Int64Array, temperature: float = 1.0) -> Float64Array:
    """float64 [N]: negative log-likelihood of each label, in nats; the arguments of `expected_calibration_error`."""
    losses = np.empty(len(labels))
    for part, rows in _relative(logits, temperature):
        own = np.take_along_axis(rows, labels[part, None], axis=1)[:, 0]
        losses[part] = np.log(np.exp(rows).sum(axis=1)) - own
    return losses


def mean_nll(logits: Float32Array, labels: Int64Array, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood of the labels, in nats; the arguments of `expected_calibration_error`."""
    return float(log_losses(logits, labels, temperature).mean())


def expected_calibration_error(logits: Float32Array, labels: Int64Array, temperature: float = 1.0) -> float:
    """`calibration_error` of logits.

    Args:
        logits: float32 [N, K], finite, N >= 1.
        labels: int64 [N].
        temperature: above 0.
    """
    return calibration_error(confidence(logits, temperature), logits.argmax(axis=1) == labels)


def calibration_error(sure: Float64Array, is_right: BoolArray) -> float:
    """Mean distance between confidence and accuracy, in percentage points.

    Guo et al. 2017, equation 5: the highest softmax probabilities fall into 15 bins ((m-1)/15, m/15] of equal width; of
    each bin, the distance between its mean probability and its share of right answers, weighted with its share of the
    images.

    Args:
        sure: float64 [N], the highest probability of each answer, N >= 1.
        is_right: bool [N].
    """
    bins = np.clip(np.ceil(sure * BINS).astype(np.int64) - 1, 0, BINS - 1)
    distances = np.bincount(bins, weights=is_right - sure, minlength=BINS)  # of sums, hence weighted already
    return float(100 * np.abs(distances).sum() / len(sure))


def _relative(logits: Float32Array, temperature: float) -> Iterator[tuple[slice, Float64Array]]:
    """Parts of the rows, each less its largest value, over the temperature."""
    for start in range(0, len(logits), _ROWS):
        part = slice(start, start + _ROWS)
        rows = logits[part].astype(np.float64)
        yield part, (rows - rows.max(axis=1, keepdims=True)) / temperature
