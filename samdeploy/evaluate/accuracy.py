"""Engine against trained network, picture by picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]
Int64Array = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two sets of logits for the same pictures differ.

    Attributes:
        top1, reference_top1: share of pictures whose highest logit is the label's, in percent.
        top1_agreement: share of pictures for which both name the same class, in percent.
        max_abs_logit_difference: the largest over all pictures and classes; infinite if a logit is not finite.
        logit_range: highest minus lowest reference logit.
        finite: whether every logit of the engine is a finite number.
    """

    top1: float
    reference_top1: float
    top1_agreement: float
    max_abs_logit_difference: float
    logit_range: float
    finite: bool


def compare(logits: Float32Array, reference: Float32Array, labels: Int64Array) -> Comparison:
    """Compare an engine's logits with the reference's.

    Args:
        logits, reference: float32 [N, K], for the same pictures in the same order.
        labels: int64 [N].
    """
    finite = bool(np.isfinite(logits).all())
    difference = np.abs(logits.astype(np.float64) - reference).max() if finite else np.inf
    # argmax takes NaN for the highest value; a row that holds one names no class.
    chosen = np.where(np.isfinite(logits).all(axis=1), logits.argmax(axis=1), -1)
    expected = reference.argmax(axis=1)
    return Comparison(
        top1=_percent(chosen == labels),
        reference_top1=_percent(expected == labels),
        top1_agreement=_percent(chosen == expected),
        max_abs_logit_difference=float(difference),
        logit_range=float(np.ptp(reference)),
        finite=finite,
    )


def _percent(hits: NDArray[np.bool_]) -> float:
    # From integers: 100 * mean would give 99.99999999999999 for a perfect score of some sizes.
    return 100 * int(hits.sum()) / len(hits)
