"""The JSON that other programs read, and the table that people read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest

from samdeploy.evaluate.accuracy import Comparison
from samdeploy.evaluate.latency import Latency
from samdeploy.evaluate.report import Report, Result, table
from samdeploy.files import json_bytes

# As documented in DESIGN.md; programs depend on every one of them.
REPORT_KEYS = ["passed", "n_images", "dataset", "test_set", "bundle", "machine", "versions", "results"]
RESULT_KEYS = [
    "backend", "precision", "device", "ran", "reason", "top1", "reference_top1", "top1_agreement",
    "max_abs_logit_difference", "logit_range", "p50_ms", "p95_ms", "p99_ms", "latency_runs", "passed",
]  # fmt: skip


def test_json(report: Callable[..., Report]) -> None:
    found = json.loads(json_bytes(report().to_json()))
    assert list(found) == REPORT_KEYS
    assert [list(row) for row in found["results"]] == [RESULT_KEYS, RESULT_KEYS]
    assert (found["passed"], found["n_images"], found["dataset"]) == (True, 359, "digits")
    assert found["results"][0] == {
        "backend": "onnxruntime", "precision": "fp32", "device": "cpu", "ran": True, "reason": "",
        "top1": 97.5, "reference_top1": 97.5, "top1_agreement": 100.0,
        "max_abs_logit_difference": 1.5e-5, "logit_range": 20.0,
        "p50_ms": 1.5, "p95_ms": 2.25, "p99_ms": 12.125, "latency_runs": 300, "passed": True,
    }  # fmt: skip


def test_json_of_an_engine_that_did_not_run(report: Callable[..., Report]) -> None:
    row = report().to_json()["results"][1]
    assert (row["ran"], row["passed"], row["device"]) == (False, False, "")
    assert row["reason"].startswith("no CUDA device: no driver")
    measured = RESULT_KEYS[RESULT_KEYS.index("top1") : -1]
    assert {key: row[key] for key in measured} == dict.fromkeys(measured)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_json_has_no_infinity(
    report: Callable[..., Report], result: Callable[..., Result], comparison: Callable[..., Comparison], value: float
) -> None:
    row = result(comparison=comparison(max_abs_logit_difference=value, finite=False), passed=False)
    text = json_bytes(report(results=(row,)).to_json()).decode()
    assert '"max_abs_logit_difference": null' in text
    assert "Infinity" not in text and "NaN" not in text


def test_table(report: Callable[..., Report]) -> None:
    lines = table(report()).splitlines()
    assert lines[0].split() == ["engine", "prec", "dev", "top-1", "PyTorch", "agree", "max", "diff", "p50", "p95",
                                "p99", "gate"]  # fmt: skip
    assert lines[2].split() == ["onnxruntime", "fp32", "cpu", "97.50", "97.50", "100.00", "1.5e-05", "1.500",
                                "2.250", "12.12", "ok"]  # fmt: skip
    assert lines[3].split() == ["tensorrt", "fp16", "-", "not", "run", "here"]
    assert lines[4] == "top-1 and agreement in %, n = 359 test images; latency in ms at batch 1"
    assert lines[5].startswith("  tensorrt fp16: no CUDA device: no driver")
    assert " ".join(" ".join(lines[5:]).split()).endswith("no driver no driver")
    assert len(lines) > 7  # the long reason went on


def test_columns_stand_below_their_headings(
    report: Callable[..., Report], result: Callable[..., Result], comparison: Callable[..., Comparison]
) -> None:
    rows = (result(comparison=comparison(top1=96.25)),)
    header, _, row, *_ = table(report(results=rows)).splitlines()
    for heading, value in (
        ("top-1", "96.25"),
        ("PyTorch", "97.50"),
        ("agree", "100.00"),
        ("max diff", "1.5e-05"),
        ("p99", "12.12"),
    ):
        assert header.index(heading) + len(heading) == row.rindex(value) + len(value), heading


def test_no_line_is_wider_than_80_columns(
    report: Callable[..., Report], result: Callable[..., Result], comparison: Callable[..., Comparison], not_run: Result
) -> None:
    worst = comparison(
        top1=100.0, reference_top1=100.0, top1_agreement=100.0, max_abs_logit_difference=1.234e-123, logit_range=1.0
    )
    rows = [
        result(device="cuda", latency=Latency(time, time, time, runs=30), comparison=worst, passed=passed)
        for time in (0.001, 9.9994, 9.9996, 99.994, 999.994, 999.996, 12345.6)
        for passed in (True, False)
    ]
    rows += [not_run, result(comparison=comparison(max_abs_logit_difference=math.inf), reason="x" * 300, passed=False)]
    lines = table(report(results=tuple(rows), n_images=1_000_000)).splitlines()
    assert [line for line in lines if len(line) > 80] == []


def test_a_failed_engine_says_so_in_the_table(report: Callable[..., Report], result: Callable[..., Result]) -> None:
    lines = table(report(results=(result(passed=False, reason="agreement 99.000 %, 100 % expected"),))).splitlines()
    assert lines[2].endswith(" FAIL")
    assert lines[-1] == "  onnxruntime fp32: agreement 99.000 %, 100 % expected"


def test_another_test_set_is_said(report: Callable[..., Report]) -> None:
    assert "test set" not in table(report())
    assert "test set: differs from the one at training" in table(report(test_set="differs from the one at training"))
