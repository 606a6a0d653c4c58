"""Trainings that are stopped at a chosen step."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from samdeploy.train.checkpoints.state import TrainState


class stopping:  # noqa: N801, used as a word
    """A real signal to this very process after a step; `torch.compile` and the like see nothing of it."""

    def __init__(self, epoch: int, step: int, number: int = signal.SIGTERM) -> None:
        self._at, self._number, self._patch = (epoch, step), number, pytest.MonkeyPatch()

    def __enter__(self) -> None:
        advance = TrainState.advance

        def advance_and_signal(state: TrainState, loss: torch.Tensor, hits: torch.Tensor) -> None:
            advance(state, loss, hits)
            if (state.epoch, state.step) == self._at:
                os.kill(os.getpid(), self._number)

        self._patch.setattr(TrainState, "advance", advance_and_signal)

    def __exit__(self, *_: object) -> None:
        self._patch.undo()
