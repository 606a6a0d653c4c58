"""`samdeploy eval --report DIR --junit FILE`, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samdeploy.backends.onnxruntime.session import OnnxruntimeSession
from samdeploy.bundle import Bundle
from samdeploy.cli import main
from samdeploy.errors import InputError
from samdeploy.evaluate import evaluate as pipeline

pytest.importorskip("onnxruntime")
Evaluate = Callable[..., int]


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Evaluate:
    """`evaluate(*arguments)`: `samdeploy eval` in this process with short measurements; the exit code."""
    monkeypatch.setattr("samdeploy.evaluate.latency.measure.RUNS", 30)
    monkeypatch.setattr("samdeploy.evaluate.latency.measure.LEAST_S", 0.0)
    monkeypatch.setattr("samdeploy.evaluate.latency.measure.WARM_UP_LIMIT_S", 0.0)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> int:
        monkeypatch.setattr(sys, "argv", ["samdeploy", "eval", *map(str, arguments), "--consistency", "0"])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run


def test_three_files(copy_of_bundle: Path, evaluate: Evaluate, tmp_path: Path, capsys: Any) -> None:
    arguments = (copy_of_bundle, "--backend", "onnxruntime", "--device", "cpu")
    assert evaluate(*arguments, "--report", "a/b c", "--junit", "one.xml", "--json", "one.json") == 0
    folder = tmp_path / "a" / "b c"
    assert capsys.readouterr().out.endswith("report: a/b c/report.html\n")
    assert sorted(path.name for path in folder.iterdir()) == [
        "confusion-PyTorch.csv", "junit.xml", "report.html", "report.json",
    ]  # fmt: skip
    assert (folder / "confusion-PyTorch.csv").read_text().startswith("true \\ answer,0,1,2")
    content = json.loads((folder / "report.json").read_text())
    shown = content.pop("report")
    assert content == json.loads((copy_of_bundle / "eval.json").read_text())
    assert content == json.loads((tmp_path / "one.json").read_text())
    assert shown["command"] == f"samdeploy eval {copy_of_bundle} --backend onnxruntime --device cpu " + (
        "--report 'a/b c' --junit one.xml --json one.json --consistency 0"
    )
    assert (folder / "junit.xml").read_bytes() == (tmp_path / "one.xml").read_bytes()
    assert ElementTree.parse(tmp_path / "one.xml").getroot().get("failures") == "0"
    page = (folder / "report.html").read_text()
    assert "PASSED" in page and "FAILED" not in page
    assert (folder / "report.html").stat().st_mode & 0o777 == 0o644


def test_an_earlier_evaluation_does_not_change_what_this_one_says(
    copy_of_bundle: Path, evaluate: Evaluate, tmp_path: Path
) -> None:
    """The file in the bundle keeps both rows; exit code, report and JUnit speak of this call, and agree."""
    pytest.importorskip("openvino", reason="pip install 'samdeploy[openvino]'")
    # 359 images cannot tell at 0.5 points, whatever the answers.
    assert evaluate(copy_of_bundle, "--backend", "openvino", "--precision", "bf16") == 1
    assert evaluate(copy_of_bundle, "--backend", "onnxruntime", "--device", "cpu", "--report", "out") == 0
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [row["backend"] for row in content["results"]] == ["onnxruntime"]
    assert (content["passed"], content["verdict"]) == (True, "holds")
    suites = ElementTree.parse(tmp_path / "out" / "junit.xml").getroot()
    assert suites.get("failures") == "0"
    assert [suite.get("name") for suite in suites] == ["onnxruntime fp32", "evaluation"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "PASSED" in page and "INCONCLUSIVE" not in page and "bf16" not in page


def test_the_report_comes_where_a_session_dies(
    copy_of_bundle: Path, evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, done = OnnxruntimeSession.run, []

    def die(self: OnnxruntimeSession, batch: np.ndarray) -> np.ndarray:
        done.append(len(batch))
        if len(done) > 2:
            raise RuntimeError("the GPU fell <off> the bus")
        return run(self, batch)

    monkeypatch.setattr(OnnxruntimeSession, "run", die)
    assert evaluate(copy_of_bundle, "--backend", "onnxruntime", "--device", "cpu", "--report", "out") == 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert "FAILED" in page and "stopped after 128 of 359 images: RuntimeError: the GPU fell &lt;off&gt;" in page
    (suite, _) = ElementTree.parse(tmp_path / "out" / "junit.xml").getroot()
    (failure,) = suite.iter("failure")
    assert failure.text == "stopped after 128 of 359 images: RuntimeError: the GPU fell <off> the bus"


@pytest.mark.parametrize(
    ("option", "place", "text"),
    [
        ("--report", "file", "--report: file is a file; name a folder"),
        ("--report", "file/out", "--report: file/out cannot be made (Not a directory); name another folder"),
        ("--junit", "none/x.xml", "--junit: the folder none does not exist; make it first"),
        ("--junit", ".", "--junit: . is a folder; name a file"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_known_before_anything_is_measured(
    copy_of_bundle: Path, evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, option: str,
    place: str, text: str,
) -> None:  # fmt: skip
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(pipeline, "evaluate_bundle", None)
    monkeypatch.setattr("samdeploy.evaluate.evaluate_bundle", None)  # calling it would be a traceback
    assert evaluate(copy_of_bundle, option, place) == 2
    assert capsys.readouterr().err == f"samdeploy: {text}\n"


def test_without_jinja_the_extra_is_named_before_anything_is_measured(
    copy_of_bundle: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "jinja2.py").write_text("raise ModuleNotFoundError('hidden', name='jinja2')")
    path = f"{tmp_path / 'hidden'}:{environment['PYTHONPATH']}"
    line = [sys.executable, "-m", "samdeploy.cli", "eval", str(copy_of_bundle), "--report", "out"]
    done = subprocess.run(
        line, cwd=tmp_path, env={**environment, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "samdeploy: the package 'jinja2' is not installed; pip install 'samdeploy[report]'\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("is_used", [False, True])
def test_a_failing_evaluation_leaves_no_empty_folder_and_hides_no_error(
    is_used: bool,
    digits_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What somebody else put into the new folder stays, and is not what the user hears of."""
    folder = tmp_path / "report"

    def fails(*_: object) -> None:
        if is_used:
            (folder / "notes.txt").write_text("mine")
        raise InputError("the true reason")

    monkeypatch.setattr("samdeploy.evaluate.evaluate_bundle", fails)
    monkeypatch.setattr("sys.argv", ["samdeploy", "eval", str(digits_bundle.root), "--report", str(folder)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and capsys.readouterr().err.endswith("samdeploy: the true reason\n")
    assert folder.exists() == is_used
