"""The tables that people read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from samdeploy.data.duplicates.leaks import LeakReport, Overlap
from samdeploy.evaluate.accuracy.compare import ClassAccuracy, Comparison
from samdeploy.evaluate.accuracy.paired import paired_difference
from samdeploy.evaluate.consistency.checks import Check, Consistency
from samdeploy.evaluate.result import Report, Result
from samdeploy.report.text.evaluation import evaluation_tables, verdict

Rows, Results, Make = Callable[..., Report], Callable[..., Result], Callable[..., Comparison]


def test_the_headline_names_the_batch_sizes(report: Callable[..., Report], result: Callable[..., Result]) -> None:
    """Those of the engine of which fewest were tried."""
    check = Check("batch sizes", "passed", 0.0, 1e-4, 1, "")
    rows = [
        result(parts={"consistency": Consistency((check,), sizes, True, 1.0)}) for sizes in ((1, 2, 3, 24), (1, 2, 3))
    ]
    assert verdict(report(results=tuple(rows[:1]))) == "PASSED (tried batch sizes 1-3, 24)"
    assert verdict(report(results=tuple(rows))) == "PASSED (tried batch sizes 1-3)"


def test_table(report: Rows) -> None:
    lines = evaluation_tables(report()).splitlines()
    assert lines[1].split() == ["engine", "verdict", "%", "class", "%", "difference", "ms", "ms", "ms"]
    assert lines[3].split() == ["PyTorch", "reference", "97.50", "-", "-", "-", "-", "-"]
    assert lines[4].split() == ["onnxruntime", "fp32", "passed", "97.50", "100.00", "1.5e-06", "1.50", "2.25", "12.1"]
    assert lines[5].split() == ["tensorrt", "fp16", "not", "run", "-", "-", "-", "-", "-", "-"]
    assert lines[6].startswith("359 test images; same class: as PyTorch;")
    assert lines[10].split() == ["change", "of", "top-1", "lost", "gained", "points", "interval", "p", "%", "points"]
    assert lines[12].split() == ["onnxruntime", "fp32", "0", "0", "0.00", "-0.44", "to", "+0.44", "1.000", "99.50",
                                 "1.25"]  # fmt: skip
    assert lines[13].startswith("lost: right in PyTorch, wrong in the engine;")
    assert lines[15] == "onnxruntime fp32  balanced accuracy 97.38 %, macro-F1 0.9740"
    assert lines[16].strip().startswith("consistent: 1 checks, within 1.5e-06 of")
    assert lines[17].startswith("tensorrt fp16     no CUDA device: no driver")
    assert " ".join(" ".join(lines[18:]).split()).endswith("no driver no driver")


def test_columns_stand_below_their_headings(report: Rows, result: Results, comparison: Make) -> None:
    found = comparison(top1=96.25, change=paired_difference(17, 5, 1000, 0.95), mcnemar_p=0.017)
    lines = evaluation_tables(report(results=(result(comparison=found),))).splitlines()
    for header, row, columns in (
        (lines[0], lines[4], (("top-1", "96.25"), ("p99", "12.1"))),
        (lines[1], lines[4], (("class %", "100.00"), ("difference", "1.5e-06"))),
        (lines[9], lines[11], (("lost", " 17"), ("gained", " 5"), ("points", "-1.20"), ("interval", "to +0.36"),
                               ("    p", "0.017"))),
        (lines[8], lines[11], (("top-5", "99.50"), ("ECE", "1.25"))),
    ):  # fmt: skip
        for heading, value in columns:
            assert header.index(heading) + len(heading) == row.index(value) + len(value), heading


def test_no_line_is_wider_than_80_columns(report: Rows, result: Results, comparison: Make, not_run: Result) -> None:
    worst = comparison(
        top1=100.0, reference_top1=100.0, top1_agreement=100.0, max_difference_of_range=1.234e-123,
        top5=100.0, ece=100.0, change=paired_difference(1_000_000, 0, 1_000_000, 0.999),
        classes=(ClassAccuracy(0, 1_000_000, 0.0, 100.0, 0.0, 0.0),),
    )  # fmt: skip
    latency = result().latency
    assert latency is not None
    rows = [
        result(device="cuda", latency=replace(latency, p50_ms=time, p95_ms=time, p99_ms=time), comparison=worst,
               passed=passed)
        for time in (0.001, 9.9994, 9.9996, 99.994, 999.994, 999.996, 12345.6)
        for passed in (True, False)
    ]  # fmt: skip
    rows += [not_run, result(comparison=comparison(max_difference_of_range=math.inf), reason="x" * 300, passed=False)]
    rows += [result(comparison=None, latency=None, n_images_done=123_456_789, verdict=None, passed=False)]
    rows += [result(device="cuda", comparison=worst, latency=None, verdict=None, passed=False)]
    made = report(
        results=tuple(rows), n_images=1_000_000, class_names=("Hawker Siddeley " * 6, "dog"), notes=("a note " * 30,),
        confidence=0.9999,
    )  # fmt: skip
    lines = evaluation_tables(made).splitlines()
    assert [line for line in lines if len(line) > 80] == []
    assert lines[4].split()[:3] == ["onnxruntime", "fp32", "(cuda)"]  # even then the engine is on one line


def test_a_failed_engine_says_so_in_the_table(report: Rows, result: Results) -> None:
    row = result(passed=False, verdict="fails", reason="agreement 99.000 %, 100 % expected")
    lines = evaluation_tables(report(results=(row,))).splitlines()
    assert lines[4].split()[2] == "failed"
    assert lines[-1].strip() == "agreement 99.000 %, 100 % expected"


def test_an_engine_that_cannot_be_judged_is_inconclusive(report: Rows, result: Results) -> None:
    row = result(precision="fp16", passed=False, verdict="cannot tell", reason="359 images cannot tell")
    made = report(results=(row,))
    assert evaluation_tables(made).splitlines()[4].split()[2] == "inconclusive"
    assert verdict(made) == "INCONCLUSIVE"


def test_an_engine_that_stopped(report: Rows, result: Results) -> None:
    reason = "stopped after 128 of 359 images: RuntimeError: out of memory"
    row = result(comparison=None, latency=None, n_images_done=128, verdict=None, passed=False, reason=reason)
    lines = evaluation_tables(report(results=(row,))).splitlines()
    assert lines[3].split() == ["onnxruntime", "fp32", "stopped", "-", "-", "-", "-", "-", "-"]
    assert lines[-1].strip() == reason
    assert not any("change of top-1" in line for line in lines)
    while_timed = result(latency=None, verdict=None, passed=False)
    lines = evaluation_tables(report(results=(while_timed,))).splitlines()
    assert (lines[4].split()[2], lines[4].split()[-3:]) == ("stopped", ["-", "-", "-"])


def test_the_class_that_loses_most(report: Rows, result: Results, comparison: Make) -> None:
    assert "loses most" not in evaluation_tables(report())
    found = comparison(classes=(ClassAccuracy(0, 600, 98.0, 98.0, 1, 1), ClassAccuracy(1, 400, 90.5, 96.75, 1, 1)))
    judged = report(results=(result(comparison=found),))
    text = evaluation_tables(judged)
    assert "onnxruntime fp32  loses most in class dog: top-1 96.75 to 90.50 % of 400 images" in text
    assert r"class d\u202e\x1bg:" in evaluation_tables(replace(judged, class_names=("cat", "d\u202e\x1bg")))


def test_another_test_set_is_said(report: Rows) -> None:
    assert "\ntest set " not in evaluation_tables(report())
    other = report(test_set="differs from the one at training")
    assert "test set          differs from the one at training" in evaluation_tables(other)
    assert verdict(other).endswith("test set differs from the one at training)")


@pytest.mark.parametrize("outcome", ["not finished", None])
def test_consistency_that_was_not_shown_is_in_the_verdict(report: Rows, result: Results, outcome: str | None) -> None:
    check = Check("two threads", "not finished", 0.0, 1e-4, 3, "time was up after 3 runs")
    parts = {"consistency": Consistency((check,), (), True, 1.0)} if outcome else {}
    made = report(results=(result(), result(backend="openvino", parts=parts)))
    assert verdict(made) == "PASSED (consistency not shown: openvino fp32)"


def test_test_images_that_were_trained_on_are_in_the_verdict(report: Rows, result: Results) -> None:
    overlaps = (Overlap("test", "train", 359, 14, 2, ()), Overlap("test", "val", 359, 3, 0, ()))
    made = report(results=(result(),), leaks=LeakReport(overlaps))
    assert verdict(made) == "PASSED (14 of 359 test images were trained on)"
    near = LeakReport((Overlap("test", "train", 359, 0, 2, ()),))
    assert verdict(report(results=(result(),), leaks=near)) == "PASSED"


def test_notes_about_the_files_are_said(report: Rows) -> None:
    assert "test: 3 images outside of any class" in evaluation_tables(
        report(notes=("test: 3 images outside of any class",))
    )


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "PASSED (not run: tensorrt fp16)"),
        ({"named": True}, "FAILED (not run: tensorrt fp16)"),
    ],
)
def test_verdict(report: Rows, changes: dict[str, bool], line: str) -> None:
    assert verdict(report(**changes)) == line


def test_headline_names_the_worst_first(report: Callable[..., Report], result: Callable[..., Result]) -> None:
    undecided = result(precision="int8", passed=False, verdict="cannot tell", reason="359 images cannot tell")
    wrong = result(passed=False, verdict="fails", reason="agreement 98 %; too slow", worst="agreement 98 %")
    made = report(results=(undecided, wrong))
    assert verdict(made).startswith("FAILED (onnxruntime fp32: agreement 98 %")
    assert "cannot tell" not in verdict(made)
    made = report(results=(undecided, wrong), faults=("model.cam.fp32.onnx: is not of this network", "other labels"))
    assert verdict(made).startswith("FAILED (model.cam.fp32.onnx: is not of this network; and 2 more, listed above")
    assert evaluation_tables(made).index("is not of this network") < evaluation_tables(made).index("other labels")
