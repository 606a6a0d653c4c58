"""The promise an engine must keep, by the precision it computes in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from samdeploy.evaluate.accuracy.compare import Comparison
from samdeploy.evaluate.accuracy.paired import PairedDifference, images_needed

Verdict = Literal["holds", "fails", "cannot tell"]

# FP32 engines differ from the network only in the order of their sums: by 1e-6 to 5e-6 of an image's logit range.
FP32_DIFFERENCE = 1e-4
# Percentage points of top-1 that a reduced precision may cost where the user names no other margin.
DEFAULT_MARGIN = 0.5


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether an engine keeps its promise.

    Attributes:
        verdict: "cannot tell" where the images are too few for an answer.
        reasons: why it does not hold, in words; empty if it does.
        n_needed: images that would decide at the same rates of flips; None where decided, or where none would.
    """

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    n_needed: int | None = None


def judge(comparison: Comparison, precision: str, margin: float = DEFAULT_MARGIN) -> Judgement:
    """Judge an engine by its answers.

    FP32: the same class for every image, and no logit off by more than 1e-4 of its image's range; answers that are
    the same need no statistics.  Any other precision must be *not inferior*: the whole confidence interval of the
    change of top-1 lies above -margin.  It fails where the whole interval lies below; in between, nothing is proven.

    Args:
        comparison: with the trained network, on the test images.
        precision: one of `samdeploy.bundle.spec.PRECISIONS`.
        margin: in points, above 0.
    """
    not_finite = () if comparison.finite else ("logits are not finite",)
    if precision == "fp32":
        reasons = (*not_finite, *_other_answers(comparison))
        return Judgement("fails" if reasons else "holds", reasons)
    found = judge_change(comparison.change, margin)
    if not_finite:
        return Judgement("fails", not_finite + (found.reasons if found.verdict == "fails" else ()))
    return found


def judge_change(change: PairedDifference, margin: float) -> Judgement:
    """Whether top-1 is not inferior: the whole interval of its change lies above -margin.

    Args:
        change: from the reference to what is judged.
        margin: in points, above 0.
    """
    if change.low > -margin:
        return Judgement("holds")
    if change.high < -margin:
        text = f"top-1 is {-change.difference:.2f} points lower ({_interval(change)}), at most {margin:g} allowed"
        return Judgement("fails", (text,))
    needed = images_needed(change, margin)
    cure = (
        f"about {needed:,} would, if answers change as often"
        if needed
        else "nor would more, if answers change so often"
    )
    text = (
        f"{change.n_images:,} images cannot tell whether top-1 drops by less than {margin:g} points "
        f"({_interval(change)}); {cure}; a wider --margin promises less, and is to be chosen beforehand"
    )
    return Judgement("cannot tell", (text,), needed)


def worst_first(reasons: Iterable[str], judgement: Judgement) -> tuple[str, ...]:
    """The reasons of one engine as they are listed: whatever is wrong before what the images could not decide."""
    undecided = judgement.reasons if judgement.verdict == "cannot tell" else ()
    return (*(text for text in reasons if text not in undecided), *undecided)


def small_difference(comparison: Comparison) -> bool:
    """Whether every logit is as near to the reference's as an FP32 engine's must be; False where none is known."""
    found = comparison.max_difference_of_range
    return found is not None and found <= FP32_DIFFERENCE


def logits_differ(comparison: Comparison) -> str:
    """In words, where an FP32 engine's logits are off by more than `FP32_DIFFERENCE`."""
    if comparison.max_difference_of_range is None:
        return "logits are not known, which FP32 is judged by"
    return (
        f"a logit differs by {comparison.max_difference_of_range:.2e} of its image's range, at most "
        f"{FP32_DIFFERENCE:.0e} expected"
    )


def _other_answers(comparison: Comparison) -> list[str]:
    broken: list[str] = []
    if comparison.top1_agreement < 100:
        broken.append(f"agreement {comparison.top1_agreement:.3f} %, 100 % expected")
    if not small_difference(comparison):
        broken.append(logits_differ(comparison))
    return broken


def _interval(change: PairedDifference) -> str:
    return f"{100 * change.confidence:g} % interval of its change: {change.low:+.2f} to {change.high:+.2f}"
