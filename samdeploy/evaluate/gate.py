"""The promise an engine must keep, by the precision it computes in."""

from __future__ import annotations

from samdeploy.evaluate.accuracy import Comparison

# FP32 engines differ from the network only in the order of their sums: about 1e-6 of the logits' range.
FP32_DIFFERENCE = 1e-4
# Percentage points of top-1 that a reduced precision may cost.
REDUCED_TOP1_DROP = 0.5


def broken_promises(comparison: Comparison, precision: str) -> list[str]:
    """What the engine fails, in words; empty if the gate holds.

    FP32: the same class for every picture, and no logit off by more than 1e-4 of the logits' range.
    Any other precision: top-1 at most 0.5 points below the network's.
    """
    broken: list[str] = []
    if not comparison.finite:
        broken.append("logits are not finite")
    if precision == "fp32":
        if comparison.top1_agreement < 100:
            broken.append(f"agreement {comparison.top1_agreement:.3f} %, 100 % expected")
        allowed = FP32_DIFFERENCE * comparison.logit_range
        if not comparison.max_abs_logit_difference <= allowed:
            broken.append(f"logits differ by {comparison.max_abs_logit_difference:.2e}, at most {allowed:.2e} expected")
    else:
        # Rounded, because the difference of two percentages of counts can be 0.5 and a bit where it is 0.5.
        drop = round(comparison.reference_top1 - comparison.top1, 9)
        if drop > REDUCED_TOP1_DROP:
            broken.append(f"top-1 is {drop:.2f} points lower, at most {REDUCED_TOP1_DROP} expected")
    return broken
