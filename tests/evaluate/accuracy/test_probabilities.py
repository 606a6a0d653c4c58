"""Calibration and accepted answers of an engine on the test images, and the promise of a bundle's threshold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from samdeploy.bundle import Bundle
from samdeploy.bundle.answers import Calibration, Rejection
from samdeploy.certainty.calibration import expected_calibration_error, mean_nll
from samdeploy.evaluate import EvalOptions, evaluate_bundle
from samdeploy.evaluate.accuracy.facts import image_facts
from samdeploy.evaluate.accuracy.probabilities import ProbabilityFigures, Promise, probability_figures

# Four classes; image i is answered with 0.97 - 0.007 * i, and wrongly from image 60 on.
COUNT, WRONG_FROM = 100, 60
SURE = 0.97 - 0.007 * np.arange(COUNT)
LABELS = np.where(np.arange(COUNT) < WRONG_FROM, 0, 1)


@pytest.fixture
def logits() -> np.ndarray:
    """float32 [100, 4], in another order than that of the probabilities."""
    rest = (1 - SURE) / 3
    return np.log(np.stack([SURE, rest, rest, rest], axis=1)).astype(np.float32)


def figures(logits: np.ndarray, labels: np.ndarray, bundle: Bundle) -> ProbabilityFigures:
    return probability_figures(image_facts(logits, logits, labels, bundle.temperature), bundle, 0.95)


def rejecting(threshold: float, wanted_error: float = 2.0) -> Rejection:
    return Rejection(threshold, wanted_error, 1.0, 50.0, 300)


def test_figures_are_those_of_the_accepted(digits_bundle: Bundle, logits: np.ndarray) -> None:
    order = np.random.default_rng(0).permutation(COUNT)
    bundle = replace(digits_bundle, calibration=None, rejection=rejecting(float(SURE[80]) - 1e-6))
    found = figures(logits[order], LABELS[order], bundle)
    assert found.accepted is not None and found.temperature is None
    assert (found.accepted.images, found.accepted.wrong) == (81, 21)
    assert found.accepted.coverage == 81 and found.accepted.error == pytest.approx(100 * 21 / 81)
    assert found.accepted.error_low < 100 * 21 / 81 < found.accepted.error_high
    assert found.risk[0] == (5, 0) and found.risk[-1] == (100, 40) and len(found.risk) == 20
    assert dict(found.risk)[75] == pytest.approx(20)
    assert (found.ece_before, found.nll_before) == (found.ece_after, found.nll_after)


def test_temperature_decides_what_is_accepted_and_which_figures_are_shown(
    digits_bundle: Bundle, logits: np.ndarray
) -> None:
    calibration = Calibration(3.0, 300, 1, 1, 1, 1)
    bundle = replace(digits_bundle, calibration=calibration, rejection=rejecting(0.9))
    found = figures(logits, LABELS, bundle)
    assert found.accepted is not None and found.accepted.images == 0 and found.accepted.error is None
    assert found.accepted.promise == "cannot tell"
    assert found.ece_after == expected_calibration_error(logits, LABELS, 3.0) != found.ece_before
    assert found.nll_after == mean_nll(logits, LABELS, 3.0) != found.nll_before


@pytest.mark.parametrize(
    ("threshold", "wanted", "promise"),
    [(0.6, 8, "kept"), (0.6, 2, "cannot tell"), (0.0, 35, "cannot tell"), (0.0, 25, "broken"), (0.0, 60, "kept")],
)
def test_promise(threshold: float, wanted: float, promise: Promise, digits_bundle: Bundle, logits: np.ndarray) -> None:
    bundle = replace(digits_bundle, calibration=None, rejection=rejecting(threshold, wanted))
    found = figures(logits, LABELS, bundle)
    assert found.accepted is not None and found.accepted.promise == promise
    assert bool(found.fault) == (promise == "broken")


@pytest.mark.usefixtures("short_latency")
def test_broken_promise_fails_the_evaluation(digits_bundle: Bundle) -> None:
    """The engine answers as the network does; the threshold does not do what it was exported for."""
    from samdeploy.report.junit import junit_xml
    from samdeploy.report.text.evaluation import evaluation_tables, verdict
    from samdeploy.report.verdict import verdict_of

    options = EvalOptions(backend="onnxruntime", precision="fp32", consistency_s=0)
    report = evaluate_bundle(replace(digits_bundle, rejection=rejecting(0.0, 0.1)), options)
    (row,) = report.results
    assert (report.verdict, row.verdict) == ("fails", "fails")
    assert "and the bundle promises at most 0.1 %; export with other validation images" in row.reason
    assert row.reason in verdict(report) and row.reason in verdict_of(report.to_json()).sentence
    assert b'<testcase classname="samdeploy.eval.onnxruntime fp32" name="error of accepted answers">' in junit_xml(
        report
    )
    assert f"temperature {digits_bundle.temperature:.3f} takes the calibration error" in evaluation_tables(report)
