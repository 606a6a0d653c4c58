"""eval.json keeps the rows of other engines, and only those that still hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from samdeploy.evaluate.eval_file import EVAL_FILE, write_eval
from samdeploy.evaluate.result import Report, Result

Rows, Results = Callable[..., Report], Callable[..., Result]


def written(folder: Path, report: Report) -> dict[str, Any]:
    write_eval(folder, report)
    content: dict[str, Any] = json.loads((folder / EVAL_FILE).read_text())
    return content


def engines(content: dict[str, Any]) -> list[tuple[str, str]]:
    return [(row["backend"], row["date"]) for row in content["results"]]


def test_a_first_evaluation_is_the_report(tmp_path: Path, report: Rows) -> None:
    assert written(tmp_path, report()) == json.loads(json.dumps(report().to_json()))


def test_another_engine_of_the_same_bundle_is_added(tmp_path: Path, report: Rows, result: Results) -> None:
    write_eval(tmp_path, report(results=(result(date="1", machine="first"),)))
    found = written(tmp_path, report(results=(result(backend="openvino", date="2", machine="second"),), named=True))
    assert engines(found) == [("onnxruntime", "1"), ("openvino", "2")]
    assert [row["machine"] for row in found["results"]] == ["first", "second"]
    assert (found["passed"], found["verdict"]) == (True, "holds")


def test_the_same_engine_takes_the_place_of_its_row(tmp_path: Path, report: Rows, result: Results) -> None:
    write_eval(tmp_path, report(results=(result(date="1", passed=False, verdict="fails"),)))
    found = written(tmp_path, report(results=(result(date="2"),)))
    assert (engines(found), found["passed"]) == ([("onnxruntime", "2")], True)
    # On another device, it is another engine.
    assert engines(written(tmp_path, report(results=(result(date="3", device="cuda"),)))) == [
        ("onnxruntime", "2"),
        ("onnxruntime", "3"),
    ]


@pytest.mark.parametrize(
    "change",
    [{"manifest_sha256": "c" * 64}, {"test_fingerprint": "c" * 64}, {"margin": 1.0}, {"confidence": 0.9}],
)
def test_rows_about_something_else_are_dropped(
    tmp_path: Path, report: Rows, result: Results, change: dict[str, Any]
) -> None:
    write_eval(tmp_path, report(results=(result(date="1"),)))
    found = written(tmp_path, report(results=(result(backend="openvino", date="2"),), **change))
    assert engines(found) == [("openvino", "2")]


def test_an_earlier_failure_counts(tmp_path: Path, report: Rows, result: Results) -> None:
    """One engine by itself passes, but the file speaks of both."""
    for earlier, verdict in ((result(passed=False, verdict="fails"), "fails"),
                             (result(passed=False, verdict="cannot tell"), "cannot tell"),
                             (result(passed=False, verdict=None), "fails")):  # fmt: skip
        (tmp_path / EVAL_FILE).unlink(missing_ok=True)
        write_eval(tmp_path, report(results=(earlier,)))
        single = report(results=(result(backend="openvino"),), named=True)
        found = written(tmp_path, single)
        assert (single.passed, found["passed"], found["verdict"]) == (True, False, verdict)


def test_not_run_here_takes_no_place_of_a_row_that_ran(
    tmp_path: Path, report: Rows, result: Results, not_run: Result
) -> None:
    """Evaluated where there is a GPU, then everything again where there is none."""
    on_gpu = result(backend="tensorrt", precision="fp16", device="cuda", date="1")
    write_eval(tmp_path, report(results=(on_gpu,), named=True))
    found = written(tmp_path, report(results=(result(date="2"), not_run)))
    assert engines(found) == [("tensorrt", "1"), ("onnxruntime", "2")]
    assert found["passed"]
    # Asked for by name here, where it cannot run: that it ran elsewhere still stands.
    found = written(tmp_path, report(results=(not_run,), named=True))
    assert engines(found) == [("tensorrt", "1"), ("onnxruntime", "2")]
    assert found["passed"]


def test_an_earlier_row_that_did_not_run_is_no_evidence(
    tmp_path: Path, report: Rows, result: Results, not_run: Result
) -> None:
    write_eval(tmp_path, report(results=(not_run,), named=True))
    assert engines(written(tmp_path, report(results=(result(date="2"),)))) == [("onnxruntime", "2")]


def test_a_report_that_says_nothing_replaces_none(
    tmp_path: Path, report: Rows, result: Results, not_run: Result, capsys: pytest.CaptureFixture[str]
) -> None:
    good = written(tmp_path, report(results=(result(date="1"),)))
    assert written(tmp_path, report(results=(not_run,), named=True)) == good
    faults = ("13 of 13 test images were trained on",)
    assert written(tmp_path, report(results=(result(date="2"),), faults=faults, test_set_faults=faults)) == good
    assert capsys.readouterr().err.count("keeps the evaluation before this one") == 2


@pytest.mark.parametrize("content", ["", "[]", "{", '{"results": 3}', '{"results": [{"ran": true}]}', "null"])
def test_a_damaged_file_is_replaced(tmp_path: Path, report: Rows, content: str) -> None:
    same = {key: report().to_json()[key] for key in ("manifest_sha256", "test_fingerprint", "margin", "confidence")}
    if content.startswith('{"'):
        content = json.dumps({**same, **json.loads(content)})
    (tmp_path / EVAL_FILE).write_text(content)
    assert written(tmp_path, report()) == json.loads(json.dumps(report().to_json()))


def test_a_folder_that_may_not_be_written_to(tmp_path: Path, report: Rows) -> None:
    with pytest.raises(OSError):
        write_eval(tmp_path / "none", report())


def test_a_row_of_another_version_is_dropped(tmp_path: Path, report: Rows, result: Results) -> None:
    """Readers count on every key; a further check, on the other hand, not every row has."""
    write_eval(tmp_path, report(results=(result(date="1"),)))
    content = json.loads((tmp_path / EVAL_FILE).read_text())
    content["results"][0]["consistency"] = {"passed": True}
    (tmp_path / EVAL_FILE).write_text(json.dumps(content))
    assert engines(written(tmp_path, report(results=(result(backend="openvino", date="2"),)))) == [
        ("onnxruntime", "1"),
        ("openvino", "2"),
    ]
    del content["results"][0]["ece"]
    (tmp_path / EVAL_FILE).write_text(json.dumps(content))
    assert engines(written(tmp_path, report(results=(result(backend="openvino", date="3"),)))) == [("openvino", "3")]
