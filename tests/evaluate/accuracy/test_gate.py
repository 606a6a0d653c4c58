"""The gate, to both sides of each of its boundaries."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from samdeploy.evaluate.accuracy.compare import Comparison
from samdeploy.evaluate.accuracy.gate import DEFAULT_MARGIN, FP32_DIFFERENCE, Judgement, judge, worst_first
from samdeploy.evaluate.accuracy.paired import paired_difference

Make = Callable[..., Comparison]
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


def flips(lost: int, gained: int, n: int, confidence: float = 0.95) -> dict[str, object]:
    """What `comparison` takes for an engine with these flips."""
    agreement = 100 * (n - lost - gained) / n
    return {"change": paired_difference(lost, gained, n, confidence), "top1_agreement": agreement}


def test_the_promises_are_those_of_the_documents() -> None:
    assert FP32_DIFFERENCE == 1e-4
    assert DEFAULT_MARGIN == 0.5


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_flawless_engine_holds(comparison: Make, precision: str) -> None:
    assert judge(comparison(), precision) == Judgement("holds")


def test_fp32_must_agree_on_every_image(comparison: Make) -> None:
    # One of ten thousand, although it makes top-1 better.
    found = comparison(**flips(0, 1, 10_000))
    assert judge(found, "fp32") == Judgement("fails", ("agreement 99.990 %, 100 % expected",))
    assert judge(found, "fp16").verdict == "holds"


def test_fp32_needs_no_statistics(comparison: Make) -> None:
    """Seven images prove nothing about a margin; the same answers are the same answers."""
    assert judge(comparison(**flips(0, 0, 7)), "fp32") == Judgement("holds")
    assert judge(comparison(**flips(0, 0, 7)), "fp16").verdict == "cannot tell"


def test_fp32_logits_may_differ_by_a_ten_thousandth_of_their_range(comparison: Make) -> None:
    assert judge(comparison(max_difference_of_range=1e-4), "fp32").verdict == "holds"
    found = judge(comparison(max_difference_of_range=2e-4), "fp32")
    text = "a logit differs by 2.00e-04 of its image's range, at most 1e-04 expected"
    assert found == Judgement("fails", (text,))
    assert judge(comparison(max_difference_of_range=math.nextafter(1e-4, 1)), "fp32").verdict == "fails"


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_a_reduced_precision_is_judged_by_the_whole_interval(comparison: Make, precision: str) -> None:
    # Large differences of logits, as long as the answers are right.
    assert judge(comparison(**flips(0, 0, 875), max_difference_of_range=0.3), precision) == Judgement("holds")
    # One image fewer: nothing is proven, though nothing was lost.
    found = judge(comparison(**flips(0, 0, 874)), precision)
    assert (found.verdict, found.n_needed) == ("cannot tell", 875)
    assert found.reasons == (
        "874 images cannot tell whether top-1 drops by less than 0.5 points (95 % interval of its change: -0.50 to "
        "+0.50); about 875 would, if answers change as often; a wider --margin promises less, and is to be chosen "
        "beforehand",
    )


def test_clearly_worse_fails(comparison: Make) -> None:
    found = judge(comparison(**flips(30, 2, 1000)), "int8")
    assert found.verdict == "fails" and found.n_needed is None
    (text,) = found.reasons
    assert text.startswith("top-1 is 2.80 points lower (95 % interval of its change: -4.")
    assert text.endswith("), at most 0.5 allowed")
    # The same flips at margins on both sides of the interval's ends.
    low, high = flips(30, 2, 1000)["change"].low, flips(30, 2, 1000)["change"].high  # type: ignore[attr-defined]
    for margin, verdict in ((-low + 0.01, "holds"), (-low - 0.01, "cannot tell"), (-high + 0.01, "cannot tell"),
                            (-high - 0.01, "fails")):  # fmt: skip
        assert judge(comparison(**flips(30, 2, 1000)), "int8", margin).verdict == verdict, margin


def test_a_drop_within_the_margin_is_not_proven_by_few_images(comparison: Make) -> None:
    """The mistake of a gate on the drop alone: 0 lost of 100 is no proof that fewer than 0.5 % are lost."""
    assert judge(comparison(**flips(0, 0, 100)), "fp16").verdict == "cannot tell"
    # Nor is a drop of 1 point of 100 images proof of the contrary.
    assert judge(comparison(**flips(1, 0, 100)), "fp16").verdict == "cannot tell"


def test_higher_confidence_asks_for_more_images(comparison: Make) -> None:
    assert judge(comparison(**flips(0, 0, 875, 0.95)), "fp16").verdict == "holds"
    assert judge(comparison(**flips(0, 0, 875, 0.99)), "fp16").verdict == "cannot tell"


def test_where_no_number_of_images_would_decide(comparison: Make) -> None:
    found = judge(comparison(**flips(5, 0, 1000)), "fp16")
    assert (found.verdict, found.n_needed) == ("cannot tell", None)
    assert "nor would more, if answers change so often" in found.reasons[0]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_logits_that_are_not_finite_always_fail(comparison: Make, precision: str) -> None:
    for change in (flips(0, 0, 10_000), flips(0, 0, 10), flips(90, 0, 100)):
        found = judge(comparison(**change, finite=False, max_difference_of_range=math.inf), precision)
        assert found.verdict == "fails"
        assert found.reasons[0] == "logits are not finite"


def test_a_difference_that_is_no_number_never_holds(comparison: Make) -> None:
    assert judge(comparison(max_difference_of_range=math.nan), "fp32").verdict == "fails"


def test_every_broken_promise_is_said(comparison: Make) -> None:
    found = comparison(top1_agreement=90.0, max_difference_of_range=0.1, finite=False)
    assert len(judge(found, "fp32").reasons) == 3


def test_what_is_wrong_comes_before_what_is_undecided() -> None:
    undecided = Judgement("cannot tell", ("359 images cannot tell",), 1000)
    reasons = worst_first(["359 images cannot tell", "golden images differ", "wrong at batch size 7"], undecided)
    assert reasons == ("golden images differ", "wrong at batch size 7", "359 images cannot tell")
    lost = Judgement("fails", ("top-1 is 3 points lower",))
    assert worst_first(["top-1 is 3 points lower", "wrong at batch size 7"], lost)[0] == "top-1 is 3 points lower"
