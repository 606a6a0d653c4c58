"""Ctrl-C: once, twice in haste, twice in earnest; and what is said of where a training stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from samdeploy.train.checkpoints import stop as stop_file
from samdeploy.train.checkpoints.saver import Saver
from samdeploy.train.checkpoints.state import TrainState
from samdeploy.train.checkpoints.stop import GRACE, Stop
from samdeploy.train.loop import train as loop
from samdeploy.train.loop.epoch import Stopped
from samdeploy.train.recipe.recipe import Recipe

MakeRecipe = Callable[..., Recipe]


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_twice_in_haste_is_one_wish(capfd: pytest.CaptureFixture[str]) -> None:
    with Stop(str) as stop:
        interrupt()
        interrupt()
        assert stop.requested == signal.SIGINT
        stop._asked -= GRACE
        with pytest.raises(KeyboardInterrupt):
            interrupt()
    said = "stopping after this step, to save (Ctrl-C again after 2 s ends at once, without saving)"
    assert capfd.readouterr().err.split("\n") == ["", said, ""]


def test_a_terminal_that_has_gone_ends_no_step() -> None:
    kept, pipe = os.dup(2), os.pipe()
    os.close(pipe[0])
    os.dup2(pipe[1], 2)
    try:
        with Stop(str) as stop:
            interrupt()
            assert stop.requested == signal.SIGINT
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(pipe[1])


def test_one_of_several_ranks_speaks(capfd: pytest.CaptureFixture[str]) -> None:
    with Stop(str, speaks=False):
        interrupt()
    assert capfd.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.usefixtures("small_network")
@pytest.mark.parametrize(
    ("at", "said"),
    [
        ((1, 2), "ended at once at epoch 1, step 2; there is no checkpoint, what was learnt since is lost. No epoch "),
        (
            (2, 2),
            "ended at once at epoch 2, step 2; the checkpoint is of the end of epoch 1, what was learnt since is ",
        ),
    ],
)
def test_twice_in_earnest_says_what_is_lost(
    at: tuple[int, int],
    said: str,
    recipe: MakeRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    advance = TrainState.advance

    def twice(state: TrainState, loss: torch.Tensor, hits: torch.Tensor) -> None:
        advance(state, loss, hits)
        if (state.epoch, state.step) == at:
            interrupt()
            interrupt()

    monkeypatch.setattr(TrainState, "advance", twice)
    monkeypatch.setattr(Saver, "due", lambda self, epoch_end: epoch_end)
    monkeypatch.setattr(stop_file, "GRACE", -1)
    with pytest.raises(KeyboardInterrupt):
        loop.train(recipe(), runs_root=tmp_path)
    assert said in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("small_network")
def test_stopped_in_the_last_measurement(
    recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(loop, "measure_test", stopped)
    with pytest.raises(SystemExit):
        loop.train(recipe(), runs_root=tmp_path)
    assert "stopped by SIGTERM at the end of epoch 2. The best weights" in capsys.readouterr().err
    monkeypatch.undo()
    loop.resume(next(tmp_path.iterdir()))
    assert "test top-1 " in capsys.readouterr().err
