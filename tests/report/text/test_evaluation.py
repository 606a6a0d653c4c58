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
from samdeploy.report.text.evaluation import table, verdict

Rows, Results, Make = Callable[..., Report], Callable[..., Result], Callable[..., Comparison]


def test_the_headline_names_the_batch_sizes(report: Callable[..., Report], result: Callable[..., Result]) -> None:
    """Those of the engine of which fewest were tried."""
    check = Check("batch sizes", "passed", 0.0, 1e-4, 1, "")
    rows = [
        result(parts={"consistency": Consistency((check,), sizes, True, 1.0)}) for sizes in ((1, 2, 3, 24), (1, 2, 3))
    ]
    assert verdict(report(results=tuple(rows[:1]))) == "PASSED (batch sizes 1-3, 24 tried)"
    assert verdict(report(results=tuple(rows))) == "PASSED (batch sizes 1-3 tried)"


def test_table(report: Rows) -> None:
    lines = table(report()).splitlines()
    assert lines[0].split() == ["engine", "prec", "dev", "top-1", "PyTorch", "agree", "max", "diff", "p50", "p95",
                                "p99", "gate"]  # fmt: skip
    assert lines[2].split() == ["onnxruntime", "fp32", "cpu", "97.50", "97.50", "100.00", "1.5e-06", "1.500",
                                "2.250", "12.12", "ok"]  # fmt: skip
    assert lines[3].split() == ["tensorrt", "fp16", "-", "not", "run", "here"]
    assert lines[4] == "top-1 and agreement in %, n = 359 test images; latency in ms at batch 1;"
    assert lines[5] == "max diff: of a logit from PyTorch's, as a share of its image's range of logits"
    assert lines[7].split() == ["change", "of", "top-1", "lost", "gained", "points", "95", "%", "interval", "p",
                                "top-5", "ECE"]  # fmt: skip
    assert lines[9].split() == ["onnxruntime", "fp32", "0", "0", "+0.00", "-0.44", "to", "+0.44", "1.000", "99.50",
                                "1.25"]  # fmt: skip
    assert lines[10].startswith("lost: right in PyTorch, wrong in the engine;")
    assert lines[11].startswith("onnxruntime fp32: consistent: 1 checks, within 1.5e-06 of")
    assert lines[12].startswith("  tensorrt fp16: no CUDA device: no driver")
    assert " ".join(" ".join(lines[13:]).split()).endswith("no driver no driver")
    assert len(lines) > 15  # the long reason went on


def test_columns_stand_below_their_headings(report: Rows, result: Results, comparison: Make) -> None:
    found = comparison(top1=96.25, change=paired_difference(17, 5, 1000, 0.95), mcnemar_p=0.017)
    lines = table(report(results=(result(comparison=found),))).splitlines()
    for header, row, columns in (
        (lines[0], lines[2], (("top-1", "96.25"), ("PyTorch", "97.50"), ("agree", "100.00"), ("max diff", "1.5e-06"),
                              ("p99", "12.12"))),
        (lines[6], lines[8], (("lost", " 17"), ("gained", " 5"), ("points", "-1.20"), ("interval", "to +0.36"),
                              ("    p", "0.017"), ("top-5", "99.50"), ("ECE", "1.25"))),
    ):  # fmt: skip
        for heading, value in columns:
            assert header.index(heading) + len(heading) == row.rindex(value) + len(value), heading


def test_no_line_is_wider_than_80_columns(report: Rows, result: Results, comparison: Make, not_run: Result) -> None:
    worst = comparison(
        top1=100.0, reference_top1=100.0, top1_agreement=100.0, max_difference_of_range=1.234e-123,
        top5=100.0, ece=100.0, change=paired_difference(1_000_000, 0, 1_000_000, 0.999),
        classes=(ClassAccuracy(0, 1_000_000, 0.0, 100.0),),
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
    assert [line for line in table(made).splitlines() if len(line) > 80] == []


def test_a_failed_engine_says_so_in_the_table(report: Rows, result: Results) -> None:
    row = result(passed=False, verdict="fails", reason="agreement 99.000 %, 100 % expected")
    lines = table(report(results=(row,))).splitlines()
    assert lines[2].endswith(" FAIL")
    assert lines[-1] == "  onnxruntime fp32: agreement 99.000 %, 100 % expected"


def test_an_engine_that_cannot_be_judged_is_neither_ok_nor_fail(report: Rows, result: Results) -> None:
    row = result(precision="fp16", passed=False, verdict="cannot tell", reason="359 images cannot tell")
    made = report(results=(row,))
    assert table(made).splitlines()[2].split()[-1] == "?"
    assert verdict(made) == "CANNOT TELL"


def test_an_engine_that_stopped(report: Rows, result: Results) -> None:
    reason = "stopped after 128 of 359 images: RuntimeError: out of memory"
    row = result(comparison=None, latency=None, n_images_done=128, verdict=None, passed=False, reason=reason)
    lines = table(report(results=(row,))).splitlines()
    assert lines[2].split() == ["onnxruntime", "fp32", "cpu", "stopped", "after", "128", "images", "FAIL"]
    assert lines[-1] == f"  onnxruntime fp32: {reason}"
    assert not any("95 % interval" in line for line in lines)
    while_timed = result(latency=None, verdict=None, passed=False)
    assert table(report(results=(while_timed,))).splitlines()[2].split()[-2:] == ["stopped", "FAIL"]


def test_the_class_that_loses_most(report: Rows, result: Results, comparison: Make) -> None:
    assert "loses most" not in table(report())
    found = comparison(classes=(ClassAccuracy(0, 600, 98.0, 98.0), ClassAccuracy(1, 400, 90.5, 96.75)))
    judged = report(results=(result(comparison=found),))
    text = table(judged)
    assert "loses most in onnxruntime fp32: class dog, top-1 96.75 to 90.50 % of 400 images" in text
    assert r"class d\u202e\x1bg," in table(replace(judged, class_names=("cat", "d\u202e\x1bg")))


def test_another_test_set_is_said(report: Rows) -> None:
    assert "test set" not in table(report())
    other = report(test_set="differs from the one at training")
    assert "test set: differs from the one at training" in table(other)
    assert verdict(other).endswith("test set differs from the one at training)")


@pytest.mark.parametrize("outcome", ["not finished", None])
def test_consistency_that_was_not_shown_is_in_the_verdict(report: Rows, result: Results, outcome: str | None) -> None:
    check = Check("two threads", "not finished", 0.0, 1e-4, 3, "time was up after 3 runs")
    parts = {"consistency": Consistency((check,), (), True, 1.0)} if outcome else {}
    made = report(results=(result(), result(backend="openvino", parts=parts)))
    assert verdict(made) == "PASSED (consistency not shown: openvino fp32)"


def test_test_pictures_that_were_trained_on_are_in_the_verdict(report: Rows, result: Results) -> None:
    overlaps = (Overlap("test", "train", 359, 14, 2, ()), Overlap("test", "val", 359, 3, 0, ()))
    made = report(results=(result(),), leaks=LeakReport(overlaps))
    assert verdict(made) == "PASSED (14 of 359 test images were trained on)"
    near = LeakReport((Overlap("test", "train", 359, 0, 2, ()),))
    assert verdict(report(results=(result(),), leaks=near)) == "PASSED"


def test_notes_about_the_files_are_said(report: Rows) -> None:
    assert "test: 3 pictures outside of any class" in table(report(notes=("test: 3 pictures outside of any class",)))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "PASSED (not run here: tensorrt fp16)"),
        ({"named": True}, "NOT PASSED (not run here: tensorrt fp16)"),
    ],
)
def test_verdict(report: Rows, changes: dict[str, bool], line: str) -> None:
    assert verdict(report(**changes)) == line


def test_headline_names_the_worst_first(report: Callable[..., Report], result: Callable[..., Result]) -> None:
    undecided = result(precision="int8", passed=False, verdict="cannot tell", reason="359 images cannot tell")
    wrong = result(passed=False, verdict="fails", reason="agreement 98 %; too slow", worst="agreement 98 %")
    made = report(results=(undecided, wrong))
    assert verdict(made).startswith("NOT PASSED (onnxruntime fp32: agreement 98 %")
    assert "cannot tell" not in verdict(made)
    made = report(results=(undecided, wrong), faults=("model.cam.fp32.onnx: is not of this network", "other labels"))
    assert verdict(made).startswith("NOT PASSED (model.cam.fp32.onnx: is not of this network; and 2 more, listed above")
    assert table(made).index("is not of this network") < table(made).index("other labels")
