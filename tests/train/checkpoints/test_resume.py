"""Trainings that are stopped and gone on with: really killed, really out of disk, and equal to the last bit."""

from __future__ import annotations

import csv
import errno
import io
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from samdeploy.runs.record import open_run
from samdeploy.train.checkpoints import saver
from samdeploy.train.checkpoints.checkpoint import read_checkpoint
from samdeploy.train.checkpoints.resume import unfinished_runs
from samdeploy.train.loop import train as loop
from samdeploy.train.recipe.dump import dump_recipe
from samdeploy.train.recipe.recipe import Recipe
from samdeploy.train.run.folder import RunFolder
from tests.train.started import Started
from tests.train.stopping import stopping

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_network")]


def history(run: Path) -> list[dict[str, str]]:
    """history.csv without the columns that no two runs share."""
    with (run / "history.csv").open(newline="") as file:
        rows = [dict(row) for row in csv.DictReader(file)]
    return [{key: value for key, value in row.items() if key not in ("images_per_s", "seconds")} for row in rows]


@pytest.mark.parametrize(("epoch", "step"), [(1, 1), (2, 3)])
def test_going_on_gives_the_same_bytes(
    everything: Recipe, undisturbed: Path, tmp_path: Path, epoch: int, step: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with stopping(epoch, step), pytest.raises(SystemExit) as caught:
        loop.train(everything, runs_root=tmp_path)
    assert caught.value.code == 143
    run = next(tmp_path.iterdir())
    said = capsys.readouterr().err
    assert f"stopped by SIGTERM at epoch {epoch}, step {step}. " in said
    assert f"go on with: samdeploy train --resume {run}" in said
    assert unfinished_runs(tmp_path) == [run]
    facts = read_checkpoint(run / "checkpoints", print).facts
    assert (facts["epoch"], facts["step"], len(facts["rows"])) == (epoch, step, epoch - 1)
    assert loop.resume(run) == run
    assert (run / "weights.safetensors").read_bytes() == (undisturbed / "weights.safetensors").read_bytes()
    assert history(run) == history(undisturbed)
    assert (run / "gates.csv").read_bytes() == (undisturbed / "gates.csv").read_bytes()
    record = open_run(run)
    assert record.status == "complete"
    assert [(leg.epoch, leg.step, leg.processes) for leg in record.legs] == [(1, 0, 1), (epoch, step, 1)]
    assert not (run / "checkpoints").exists()
    assert unfinished_runs(tmp_path) == []


def test_the_state_at_the_end_is_the_same_too(
    everything: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # weights.safetensors is of the best epoch; here all tensors of the last moment are compared: moments, mean, ...
    ends = []
    monkeypatch.setattr(saver.Saver, "due", lambda self, epoch_end: epoch_end)
    monkeypatch.setattr(
        RunFolder, "complete", lambda run, test: ends.append(read_checkpoint(run.checkpoints, print).tensors)
    )
    loop.train(everything, runs_root=tmp_path / "calm")
    with stopping(2, 1), pytest.raises(SystemExit):
        loop.train(everything, runs_root=tmp_path / "stopped")
    loop.resume(next((tmp_path / "stopped").iterdir()))
    calm, resumed = ends
    assert calm.keys() == resumed.keys()
    assert len([key for key in calm if key.startswith("optimizer.")]) == 3 * 42  # weights of the small network
    for key, value in calm.items():
        assert torch.equal(value, resumed[key]), key


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_real_process(
    everything: Recipe, tmp_path: Path, undisturbed: Path, number: signal.Signals, start: Callable[..., Started]
) -> None:
    file = tmp_path / "it.toml"
    file.write_text(dump_recipe(everything))
    process = start("train", file, cwd=tmp_path)
    process.wait_until(lambda: list(tmp_path.glob("runs/*/checkpoints/last.safetensors")))  # of the first epoch's end
    process.send(number)
    sent = time.monotonic()
    code = process.wait()
    assert time.monotonic() - sent < 10
    run = next((tmp_path / "runs").iterdir())
    if number == signal.SIGKILL:
        assert code == -9
    else:
        assert code == 128 + number
        # Not before the test, but whether in a step or right after an epoch's last one depends on the machine.
        assert re.search(rf"stopped by {number.name} at (epoch \d+, step \d+|the end of epoch \d+)\.", process.said)
        assert "Traceback" not in process.said
        assert not [path for path in run.iterdir() if path.name.startswith(".")], "a temporary file was left"
        assert open_run(run).status == "interrupted"
    again = start("train", "--resume", cwd=tmp_path)
    assert again.wait() == 0, again.said
    assert f"taking the newest unfinished run: {run.relative_to(tmp_path)}" in again.said
    assert again.out == f"{run.relative_to(tmp_path)}\n"
    assert (run / "weights.safetensors").read_bytes() == (undisturbed / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_closes(
    everything: Recipe, undisturbed: Path, tmp_path: Path, ignored: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGHUP saves as SIGTERM does; under nohup, which has it ignored, training goes on."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        with stopping(2, 1, signal.SIGHUP):
            if ignored:
                loop.train(everything, runs_root=tmp_path)
            else:
                with pytest.raises(SystemExit) as caught:
                    loop.train(everything, runs_root=tmp_path)
                assert caught.value.code == 129
    finally:
        signal.signal(signal.SIGHUP, before)
    run = next(tmp_path.iterdir())
    assert ("stopped by SIGHUP at epoch 2, step 1. " in capsys.readouterr().err) is not ignored
    if not ignored:
        loop.resume(run)
    assert (run / "weights.safetensors").read_bytes() == (undisturbed / "weights.safetensors").read_bytes()


class Unread(io.StringIO):
    """Standard error, whose reader goes after a line with these words."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words

    def write(self, text: str) -> int:
        if self._words in self.getvalue():
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        return super().write(text)


@pytest.mark.parametrize(("words", "kept"), [("", False), ("training sam-", False), ("2/3 ", True)])
def test_a_reader_of_the_progress_that_goes(
    everything: Recipe, undisturbed: Path, tmp_path: Path, words: str, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `2>&1 | head` does: the error is the pipe's, which the command line turns into exit code 141."""
    monkeypatch.setattr(sys, "stderr", Unread(words))
    with pytest.raises(BrokenPipeError):
        loop.train(everything, runs_root=tmp_path)
    monkeypatch.undo()
    runs = list(tmp_path.iterdir())
    assert len(runs) == kept
    if kept:
        assert open_run(runs[0]).status == "interrupted"
        loop.resume(runs[0])
        assert (runs[0] / "weights.safetensors").read_bytes() == (undisturbed / "weights.safetensors").read_bytes()


def test_another_batch_size_begins_its_epoch_anew(stopped: Path) -> None:
    loop.resume(stopped, overrides=["batch_size=11"], force=True)
    assert [row["epoch"] for row in history(stopped)] == ["1", "2", "3"]


def test_images_elsewhere_are_the_same_images(stopped: Path, examples: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(examples, tmp_path / "images"))
    loop.resume(stopped, overrides=[f"data.root={copy}"])
    assert open_run(stopped).data_root == str(copy)


def test_a_damaged_checkpoint(stopped: Path, capsys: pytest.CaptureFixture[str], undisturbed: Path) -> None:
    last = stopped / "checkpoints" / "last.safetensors"
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes(data)
    assert loop.resume(stopped) == stopped  # from the end of epoch 1
    said = capsys.readouterr().err
    assert "last.safetensors: damaged, its content is not what was written; going on from previous.safetensors" in said
    assert "going on at epoch 2 step 0" in said
    assert (stopped / "weights.safetensors").read_bytes() == (undisturbed / "weights.safetensors").read_bytes()
