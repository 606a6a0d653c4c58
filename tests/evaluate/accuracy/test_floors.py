"""`--min-top1` and `--min-class-recall`: accuracy that is asked of every engine beside the gate."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from samdeploy.bundle import Bundle
from samdeploy.errors import InputError
from samdeploy.evaluate import EvalOptions, evaluate_bundle
from samdeploy.evaluate.accuracy.compare import Comparison
from samdeploy.evaluate.accuracy.floors import Floors
from samdeploy.report.text.evaluation import verdict


@pytest.mark.parametrize(
    ("floors", "missed"),
    [
        (Floors(), ""),
        (Floors(97.5, 96.75), ""),
        (Floors(min_top1=97.6), "top-1 97.50 % is below --min-top1 97.6"),
        (Floors(min_class_recall=97), "recall of 'dog' 96.75 % is below --min-class-recall 97"),
    ],
)
def test_missed(comparison: Callable[..., Comparison], floors: Floors, missed: str) -> None:
    assert floors.missed(comparison(), ("cat", "dog")) == missed


def test_class_without_images_misses(comparison: Callable[..., Comparison]) -> None:
    missed = Floors(min_class_recall=5).missed(comparison(), ("cat", "dog", "eel"))
    assert missed == "recall of 'eel' without a test image is below --min-class-recall 5"


@pytest.mark.parametrize("value", [0.95, 0, -3, 101, float("nan")])
def test_no_percentage(value: float) -> None:
    with pytest.raises(InputError, match=r"--min-top1: .* a percentage above 1 and at most 100 expected"):
        Floors(min_top1=value)


def test_share_is_taken_for_a_percentage_in_the_hint() -> None:
    with pytest.raises(InputError, match="for 95 %: --min-class-recall 95"):
        Floors(min_class_recall=0.95)


@pytest.mark.usefixtures("short_latency")
def test_engine_below_fails_the_evaluation(digits_bundle: Bundle) -> None:
    """The engine answers as the network does, and the network is not good enough."""
    from samdeploy.report.junit import junit_xml
    from samdeploy.report.verdict import verdict_of

    options = EvalOptions(backend="onnxruntime", precision="fp32", consistency_s=0, floors=Floors(min_top1=99.99))
    report = evaluate_bundle(digits_bundle, options)
    (row,) = report.results
    assert row.below_minimum == row.reason and "is below --min-top1 99.99" in row.reason
    assert (report.passed, report.verdict, row.verdict) == (False, "fails", "fails")
    assert verdict(report).startswith("FAILED (below the minimum asked for: onnxruntime fp32")
    assert "did not reach the accuracy that was asked for" in verdict_of(report.to_json()).sentence
    assert b'name="minimum accuracy"' in junit_xml(report) and report.to_json()["min_top1"] == 99.99
