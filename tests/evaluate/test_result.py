"""The JSON that other programs read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from samdeploy.evaluate.accuracy.compare import Comparison, PerImage
from samdeploy.evaluate.accuracy.paired import paired_difference
from samdeploy.evaluate.eval_file import merged
from samdeploy.evaluate.result import MOST_CHANGED, Report, Result, overall_verdict
from samdeploy.files import json_bytes
from samdeploy.report.text.evaluation import verdict

# As documented in DESIGN.md; programs depend on every one of them.
REPORT_KEYS = [
    "passed", "verdict", "n_images", "test_images", "dataset", "test_set", "reference", "is_chance", "margin",
    "confidence",
    "min_top1", "min_class_recall", "bundle", "manifest_sha256", "test_fingerprint", "machine", "versions", "notes",
    "leaks", "left_out", "faults", "test_set_faults", "data_root", "against_training", "results",
]  # fmt: skip
RESULT_KEYS = [
    "backend", "precision", "device", "ran", "reason", "top1", "reference_top1", "top1_agreement",
    "max_difference_of_range", "top5", "reference_top5", "lost", "gained", "mcnemar_p", "difference",
    "difference_low", "difference_high", "ece", "reference_ece", "balanced_accuracy", "reference_balanced_accuracy",
    "macro_f1", "reference_macro_f1", "worst_class", "classes", "changed", "p50_ms",
    "p95_ms", "p99_ms", "latency_runs", "latency", "passed", "verdict", "n_needed", "below_minimum", "n_images_done",
    "date", "machine", "versions",
]  # fmt: skip
MEASURED = RESULT_KEYS[RESULT_KEYS.index("top1") : RESULT_KEYS.index("passed")]


def test_json(report: Callable[..., Report]) -> None:
    found = json.loads(json_bytes(report().to_json()))
    assert list(found) == REPORT_KEYS
    assert [list(row) for row in found["results"]] == [[*RESULT_KEYS, "consistency"], RESULT_KEYS]
    assert (found["passed"], found["verdict"], found["n_images"], found["dataset"]) == (True, "holds", 359, "digits")
    row = found["results"][0]
    low, high = row.pop("difference_low"), row.pop("difference_high")
    assert low == -high == pytest.approx(-100 * (1 - 0.0125 ** (1 / 1000)))
    assert row.pop("latency")["p90_ms"] == 2.0
    assert row.pop("consistency")["passed"] is True
    assert row == {
        "backend": "onnxruntime", "precision": "fp32", "device": "cpu", "ran": True, "reason": "",
        "top1": 97.5, "reference_top1": 97.5, "top1_agreement": 100.0,
        "max_difference_of_range": 1.5e-6, "top5": 99.5, "reference_top5": 99.75,
        "lost": 0, "gained": 0, "mcnemar_p": 1.0, "difference": 0.0, "ece": 1.25, "reference_ece": 1.5,
        "balanced_accuracy": 97.375, "reference_balanced_accuracy": 97.375,
        "macro_f1": 0.974, "reference_macro_f1": 0.974,
        "worst_class": {
            "label": "dog", "images": 400, "top1": 96.75, "reference_top1": 96.75, "precision": 0.97, "f1": 0.97,
        },
        "classes": [
            {"label": "cat", "images": 600, "top1": 98.0, "reference_top1": 98.0, "precision": 0.98, "f1": 0.98},
            {"label": "dog", "images": 400, "top1": 96.75, "reference_top1": 96.75, "precision": 0.97, "f1": 0.97},
        ],
        "changed": [],
        "p50_ms": 1.5, "p95_ms": 2.25, "p99_ms": 12.125, "latency_runs": 300, "passed": True,
        "verdict": "holds", "n_needed": None, "below_minimum": "",
        "n_images_done": 1000, "date": "2026-11-22T12:00:00+00:00",
        "machine": "a processor", "versions": {"samdeploy": "0.1.0"},
    }  # fmt: skip


def test_json_of_flips(result: Callable[..., Result], comparison: Callable[..., Comparison]) -> None:
    change = paired_difference(3, 1, 1000, 0.95)
    row = result(comparison=comparison(change=change, mcnemar_p=0.625)).to_json(["cat", "dog"])
    assert (row["lost"], row["gained"], row["mcnemar_p"]) == (3, 1, 0.625)
    assert (row["difference_low"], row["difference"], row["difference_high"]) == (change.low, -0.2, change.high)


def test_json_of_an_engine_that_did_not_run(report: Callable[..., Report]) -> None:
    row = report().to_json()["results"][1]
    assert (row["ran"], row["passed"], row["device"], row["verdict"]) == (False, False, "", None)
    assert row["reason"].startswith("no CUDA device: no driver")
    assert {key: row[key] for key in MEASURED} == dict.fromkeys(MEASURED)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_json_has_no_infinity(
    report: Callable[..., Report], result: Callable[..., Result], comparison: Callable[..., Comparison], value: float
) -> None:
    row = result(comparison=comparison(max_difference_of_range=value, finite=False, ece=None), passed=False)
    text = json_bytes(report(results=(row,)).to_json()).decode()
    assert '"max_difference_of_range": null' in text and '"ece": null' in text
    assert "Infinity" not in text and "NaN" not in text


def test_images_with_another_answer_are_listed(
    result: Callable[..., Result], comparison: Callable[..., Comparison]
) -> None:
    labels, engine = np.array([1, 0, 1], np.int32), np.array([1, 1, -1], np.int32)
    found = comparison(per_image=PerImage(labels, engine, labels))
    assert result(comparison=found).to_json(["cat", "dog"])["changed"] == [
        {"index": 1, "label": "cat", "reference": "cat", "engine": "dog"},
        {"index": 2, "label": "dog", "reference": "dog", "engine": None},
    ]
    many = PerImage(*(np.full(10_000, value, np.int32) for value in (0, 1, 0)))
    rows = result(comparison=comparison(per_image=many)).to_json(["cat", "dog"])["changed"]
    assert [row["index"] for row in rows] == list(range(MOST_CHANGED)) == list(range(200))


class Rounds:
    """A further check."""

    def to_json(self) -> dict[str, object]:
        return {"repeats": 200}


def test_further_checks_stand_under_their_names(result: Callable[..., Result]) -> None:
    row = result(parts={"consistency": Rounds()}).to_json(["cat", "dog"])
    assert row["consistency"] == {"repeats": 200}
    assert list(row) == [*RESULT_KEYS, "consistency"]


HELD, FAILED, OPEN = (True, True, "holds"), (True, False, "fails"), (True, False, "cannot tell")
STOPPED, ABSENT = (True, False, None), (False, False, None)


@pytest.mark.parametrize(
    ("rows", "verdict", "verdict_if_named"),
    [
        ([HELD, HELD], "holds", "holds"),
        ([HELD, ABSENT], "holds", "fails"),
        ([HELD, OPEN], "cannot tell", "cannot tell"),
        ([OPEN, ABSENT], "cannot tell", "fails"),
        ([HELD, OPEN, FAILED], "fails", "fails"),
        ([HELD, STOPPED], "fails", "fails"),
        ([OPEN, STOPPED], "fails", "fails"),
        ([ABSENT], "fails", "fails"),
        ([], "fails", "fails"),
        # The accuracy holds, but another promise was broken.
        ([HELD, (True, False, "holds")], "fails", "fails"),
    ],
)
def test_the_verdict_on_all_rows(rows: list[tuple[bool, bool, str]], verdict: str, verdict_if_named: str) -> None:
    assert overall_verdict(rows, named=False) == verdict
    assert overall_verdict(rows, named=True) == verdict_if_named


def test_a_fault_of_the_evaluation_fails_it_and_opens_the_headline(report: Callable[..., Report]) -> None:
    found = report(faults=("the test set is the training set",))
    assert (found.passed, found.to_json()["verdict"], merged(found, {})["verdict"]) == (False, "fails", "fails")
    assert verdict(found).startswith("FAILED (the test set is the training set; not run: ")


def test_passed_is_the_verdict_that_holds(report: Callable[..., Report], result: Callable[..., Result]) -> None:
    for row, passed in ((result(), True), (result(passed=False, verdict="cannot tell"), False)):
        assert report(results=(row,)).passed is passed


@pytest.mark.parametrize(("top1", "expected"), [(50.1, True), (97.5, False)])
def test_a_reference_at_chance_is_known(
    report: Callable[..., Report],
    result: Callable[..., Result],
    comparison: Callable[..., Comparison],
    top1: float,
    expected: bool,
) -> None:
    rows = (result(comparison=comparison(reference_top1=top1)),)
    assert report(results=rows).is_chance is expected
