"""Ctrl-C and SIGTERM end every command in good order."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from samdeploy.bundle import open_bundle
from samdeploy.bundle.names import HISTORY_FILE, RUN_FILE, WEIGHTS_FILE
from samdeploy.runs.record import open_run
from tests.cli.typed import TINY, Inside

pytestmark = pytest.mark.slow


class Started:
    """A samdeploy that runs beside the test."""

    def __init__(
        self, arguments: Sequence[str | Path], cwd: Path, environment: dict[str, str], options: Sequence[str]
    ) -> None:
        self.errors = cwd / "stderr.txt"
        line = [sys.executable, *options, "-m", "samdeploy.cli", *map(str, arguments)]
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(line, cwd=cwd, env=environment, stdout=subprocess.DEVNULL, stderr=errors)

    def wait_until(self, happened: Callable[[], bool]) -> None:
        end = time.monotonic() + 300
        while not happened():
            assert self.process.poll() is None, self.errors.read_text()
            assert time.monotonic() < end, self.errors.read_text()
            time.sleep(0.05)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=120)


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Callable[..., Started]]:
    started: list[Started] = []

    def begin(*arguments: str | Path, cwd: Path, options: Sequence[str] = ()) -> Started:
        started.append(Started(arguments, cwd, environment, options))
        return started[-1]

    yield begin
    for one in started:
        one.process.kill()
        one.process.wait()


# A shell shows 130 for both.  Python ends itself with the signal where Ctrl-C met a text that was being executed, as
# when dataclasses are made during an import, whatever the program does with the exception afterwards (pythonrun.c).
INTERRUPTED = (130, -signal.SIGINT)


@pytest.fixture
def has_reader() -> Iterator[Callable[[Path], bool]]:
    """`has_reader(pipe)`: whether some process reads from it; it then waits for what is never written."""
    writing: list[int] = []

    def found(pipe: Path) -> bool:
        try:
            writing.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    yield found
    for handle in writing:  # not before: the reader would find the end of the file, and go on
        os.close(handle)


def test_ctrl_c_in_training_keeps_the_best_weights(
    tmp_path: Path, start: Callable[..., Started], inside: Inside
) -> None:
    started = start("train", *TINY, "--set", "training.epochs=1000", cwd=tmp_path)
    started.wait_until(lambda: " 1/1000 " in started.errors.read_text())
    assert started.interrupt() in INTERRUPTED
    errors = started.errors.read_text()
    assert "Traceback" not in errors
    assert "stopping after this step, to save (Ctrl-C again after 2 s ends at once, without saving)\n" in errors
    assert "stopped by SIGINT at " in errors
    assert "samdeploy: interrupted" not in errors
    (run,) = (tmp_path / "runs").iterdir()
    record = open_run(run)
    assert record.status == "interrupted"
    assert record.best_epoch >= 1
    assert record.test_top1 is None
    assert f"The best weights (epoch {record.best_epoch}, " in errors
    assert (run / WEIGHTS_FILE).is_file() and (run / HISTORY_FILE).is_file()
    # What was kept can be exported.
    code, output, _ = inside("export", "--engine", "onnxruntime", cwd=tmp_path)
    assert code == 0
    assert open_bundle(output.splitlines()[-1]).provenance["run_status"] == "interrupted"


def test_ctrl_c_in_export(tmp_path: Path, start: Callable[..., Started], has_reader: Callable[[Path], bool]) -> None:
    run = tmp_path / "run"
    run.mkdir()
    os.mkfifo(run / RUN_FILE)  # reading it takes for ever
    started = start("export", run, cwd=tmp_path)
    started.wait_until(lambda: has_reader(run / RUN_FILE))
    time.sleep(1)  # until it waits: a signal just before that is seen by Python when the call ends, that is, never
    assert started.interrupt() in INTERRUPTED
    assert started.errors.read_text() == "samdeploy: interrupted\n"
    assert [path.name for path in run.iterdir()] == [RUN_FILE]


def test_ctrl_c_in_predict(
    finished: Path, digit_files: Sequence[Path], tmp_path: Path, start: Callable[..., Started]
) -> None:
    (tmp_path / "many").mkdir()
    shutil.copy(digit_files[0], tmp_path / "digit.png")
    for number in range(30_000):  # more than a few seconds' work
        os.link(tmp_path / "digit.png", tmp_path / "many" / f"{number}.png")
    started = start("predict", finished / "runs/digits/bundle", tmp_path / "many", cwd=tmp_path)
    started.wait_until(lambda: ": onnxruntime, fp32, cpu\n" in started.errors.read_text())
    assert started.interrupt() in INTERRUPTED
    errors = started.errors.read_text()
    assert errors.splitlines()[-1] == "samdeploy: interrupted"
    assert "Traceback" not in errors


def test_ctrl_c_in_eval(copy_of_bundle: Path, tmp_path: Path, start: Callable[..., Started]) -> None:
    # Python says on standard error what it has imported.  The runtime comes once PyTorch's answers are there, and what
    # follows, a whole test set and hundreds of timed runs, takes longer than a signal.
    arguments = ("eval", copy_of_bundle, "--backend", "onnxruntime", "--report", "report")
    started = start(*arguments, cwd=tmp_path, options=["-X", "importtime"])
    started.wait_until(lambda: "| onnxruntime\n" in started.errors.read_text())
    assert started.interrupt() in INTERRUPTED
    errors = started.errors.read_text()
    assert errors.splitlines()[-1] == "samdeploy: interrupted"
    assert "Traceback" not in errors
    assert not (copy_of_bundle / "eval.json").exists()
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_while_the_modules_are_loaded_is_no_traceback(
    tmp_path: Path, environment: dict[str, str], ignored: bool
) -> None:
    (tmp_path / "typer.py").write_text("import time; print('loading', flush=True); time.sleep(2); raise SystemExit(7)")
    line = [sys.executable, "-m", "samdeploy", "doctor"]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        loading = subprocess.Popen(
            line, env={**environment, "PYTHONPATH": str(tmp_path)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert loading.stdout is not None
    assert loading.stdout.readline() == b"loading\n"
    loading.send_signal(signal.SIGINT)
    _, errors = loading.communicate(timeout=60)
    assert (loading.returncode, errors) == (7 if ignored else -signal.SIGINT, b"")
