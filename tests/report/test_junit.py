"""JUnit XML that a parser of it reads, and that never contradicts the exit code."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from samdeploy.data.duplicates.leaks import LeakReport, Overlap
from samdeploy.evaluate.result import Report
from samdeploy.report.junit import junit_xml

junitparser = pytest.importorskip("junitparser")


def outcomes(content: bytes) -> dict[str, dict[str, tuple[str, str]]]:
    """suite -> case -> (outcome, text)"""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for suite in junitparser.JUnitXml.fromstring(content):
        cases = found[suite.name] = {}
        for case in suite:
            (result,) = case.result or [None]
            outcome = "passed" if result is None else type(result).__name__.lower()
            cases[case.name] = (outcome, "" if result is None else (result.text or result.message))
    return found


def test_one_suite_for_each_engine(everything: Report) -> None:
    found = outcomes(junit_xml(everything))
    assert list(found) == [*(row.engine for row in everything.results), "evaluation"]
    assert {name: [outcome for outcome, _ in cases.values()] for name, cases in found.items()} == {
        "onnxruntime fp32": ["passed"] * 8 + ["skipped", "passed"],
        "openvino int8": ["passed", "passed", "failure", "passed", "failure", "skipped", "skipped", "skipped"],
        "openvino bf16": ["passed", "passed", "failure", "passed", *["failure"] * 4, "passed"],
        "tensorrt fp32": ["passed", "failure"],
        "tensorrt fp16": ["skipped"],
        "evaluation": ["passed", "skipped", "passed", "passed", "failure"],
    }
    assert found["onnxruntime fp32"]["consistency: two threads"] == ("skipped", "time was up after 3 runs")
    assert "359 images cannot tell" in found["openvino int8"]["accuracy gate"][1]
    assert found["openvino int8"]["latency is steady"][1].startswith("too noisy for a verdict: p90 is 6.00")
    assert found["openvino bf16"]["consistency: batch sizes"][1] == "wrong at batch size 7, in every row"
    assert found["openvino bf16"]["probe images"][1].startswith("channels: the engine reads BGR for RGB; answers for ")
    assert "of the 359 accepted answers are wrong" in found["openvino bf16"]["error of accepted answers"][1]
    assert found["tensorrt fp32"]["answers every test image"][1] == everything.results[3].reason
    assert found["tensorrt fp16"]["runs here"] == ("skipped", "no CUDA device: no driver")
    assert "3 of 359 test images (0.84 %) are also in val" in next(
        text for name, (_, text) in found["evaluation"].items() if name.startswith("leak guard")
    )


def test_counts(everything: Report) -> None:
    root = ElementTree.fromstring(junit_xml(everything))
    for element in (root, *root):
        assert element.get("tests") == str(len(element.findall(".//testcase")))
        assert element.get("failures") == str(len(element.findall(".//failure")))
        assert element.get("skipped") == str(len(element.findall(".//skipped")))
    assert root[0].get("timestamp") == "2026-11-22T12:00:00+00:00"


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("rows", [[0], [1], [2], [3], [4], [0, 4], [1, 4], [0, 1], []])
def test_it_fails_exactly_where_the_exit_code_does(everything: Report, rows: list[int], named: bool) -> None:
    report = replace(everything, results=tuple(everything.results[index] for index in rows), named=named)
    failures = ElementTree.fromstring(junit_xml(report)).get("failures")
    assert (failures == "0") is report.passed


def test_an_engine_that_was_named_must_run(everything: Report) -> None:
    report = replace(everything, results=everything.results[4:], named=True)
    assert outcomes(junit_xml(report))["tensorrt fp16"] == {"runs here": ("failure", "no CUDA device: no driver")}


def test_without_copies_the_leak_guard_passes(everything: Report) -> None:
    for leaks, outcome in ((None, "skipped"), (LeakReport((Overlap("test", "train", 359, 0, 0, ()),)), "passed")):
        cases = outcomes(junit_xml(replace(everything, leaks=leaks)))["evaluation"]
        assert [found for name, (found, _) in cases.items() if name.startswith("leak guard")] == [outcome]


def test_another_test_set_is_no_pass(everything: Report) -> None:
    cases = outcomes(junit_xml(replace(everything, test_set="differs from the one at training")))["evaluation"]
    assert cases["test set is the one at training"] == ("skipped", "differs from the one at training")


def test_what_xml_cannot_hold_is_replaced(everything: Report) -> None:
    row = replace(everything.results[3], reason="\x1b[31mred\x1b[0m \x00 <b> ]]> & \ud800 \U0001f600")
    found = outcomes(junit_xml(replace(everything, results=(row,))))
    text = found["tensorrt fp32"]["answers every test image"][1]
    assert text == "\ufffd[31mred\ufffd[0m \ufffd <b> ]]> & \ufffd \U0001f600"


def test_the_file_of_a_report_is_the_same(everything: Report, written: Path) -> None:
    assert (written / "junit.xml").read_bytes() == junit_xml(everything)


def test_the_message_is_the_first_reason(everything: Report) -> None:
    row = replace(everything.results[2], reason="it is wrong; or slow; and late", worst="it is wrong; or slow")
    faults = ("the weights are others; or the graph is", "second")
    root = ElementTree.fromstring(junit_xml(replace(everything, results=(row,), faults=faults)))
    failures = {case.get("name"): case.find("failure") for case in root.iter("testcase")}
    for name, message, text in (
        ("every promise", row.worst, row.reason),
        ("accuracy gate", row.worst, row.reason),
        ("the evaluation is valid", faults[0], "; ".join(faults)),
    ):
        found = failures[name]
        assert found is not None and (found.get("message"), found.text) == (message, text)
