"""The gate, to both sides of each of its boundaries."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from samdeploy.evaluate.accuracy import Comparison
from samdeploy.evaluate.gate import FP32_DIFFERENCE, REDUCED_TOP1_DROP, broken_promises

Make = Callable[..., Comparison]
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


def test_the_promises_are_those_of_the_documents() -> None:
    assert FP32_DIFFERENCE == 1e-4
    assert REDUCED_TOP1_DROP == 0.5


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_flawless_engine_passes(comparison: Make, precision: str) -> None:
    assert broken_promises(comparison(), precision) == []


def test_fp32_must_agree_on_every_picture(comparison: Make) -> None:
    # One of ten thousand, although it makes top-1 better.
    found = comparison(top1=97.51, top1_agreement=100 * 9999 / 10000)
    assert broken_promises(found, "fp32") == ["agreement 99.990 %, 100 % expected"]
    assert broken_promises(found, "fp16") == []


def test_fp32_logits_may_differ_by_a_ten_thousandth_of_their_range(comparison: Make) -> None:
    assert broken_promises(comparison(max_abs_logit_difference=1e-4 * 20), "fp32") == []
    (text,) = broken_promises(comparison(max_abs_logit_difference=math.nextafter(1e-4 * 20, 1)), "fp32")
    assert text == "logits differ by 2.00e-03, at most 2.00e-03 expected"
    # Of the range, not absolutely: the same difference of smaller logits is too much.
    assert broken_promises(comparison(max_abs_logit_difference=1e-3, logit_range=5.0), "fp32")
    assert not broken_promises(comparison(max_abs_logit_difference=1e-3, logit_range=500.0), "fp32")


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_a_reduced_precision_may_lose_half_a_point(comparison: Make, precision: str) -> None:
    assert broken_promises(comparison(top1=97.0, top1_agreement=98.0, max_abs_logit_difference=3.0), precision) == []
    assert broken_promises(comparison(top1=96.99), precision) == ["top-1 is 0.51 points lower, at most 0.5 expected"]
    assert broken_promises(comparison(top1=99.0), precision) == []  # better is no fault


def test_half_a_point_of_counted_pictures_passes(comparison: Make) -> None:
    """Percentages of counts are no round numbers: 5 of 1,000 must pass whatever their last bit."""
    for right in range(5, 1001):
        found = comparison(reference_top1=100 * right / 1000, top1=100 * (right - 5) / 1000)
        assert broken_promises(found, "fp16") == [], right
        if right > 5:
            found = comparison(reference_top1=100 * right / 1000, top1=100 * (right - 6) / 1000)
            assert broken_promises(found, "fp16") != [], right


@pytest.mark.parametrize("precision", PRECISIONS)
def test_logits_that_are_not_finite_never_pass(comparison: Make, precision: str) -> None:
    found = broken_promises(comparison(finite=False, max_abs_logit_difference=math.inf), precision)
    assert found[0] == "logits are not finite"


def test_a_difference_that_is_no_number_never_passes(comparison: Make) -> None:
    assert broken_promises(comparison(max_abs_logit_difference=math.nan), "fp32")


def test_every_broken_promise_is_said(comparison: Make) -> None:
    found = comparison(top1_agreement=90.0, max_abs_logit_difference=2.0, finite=False)
    assert len(broken_promises(found, "fp32")) == 3
