"""Where a training stands: all that changes from step to step, and its way into a checkpoint and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from samdeploy.models.weights import load_state
from samdeploy.train.checkpoints.checkpoint import Checkpoint
from samdeploy.train.distributed import Ranks, smallest_batch
from samdeploy.train.loop.batches import StoredImages
from samdeploy.train.loop.ema import WeightMean
from samdeploy.train.loop.seeds import Shuffle
from samdeploy.train.loop.step import Stepper
from samdeploy.train.recipe.recipe import TrainingSection
from samdeploy.train.watch.history import EpochRow, GateRow


class TrainState:
    """Network, optimiser, position and history.

    Attributes:
        model: the network that learns.
        mean: its averaged weights, where the recipe wants them.
        epoch: the one under way, counted from 1.
        step: optimiser steps done in it.
        batches: row numbers of its batches, int64 [n] each; empty between two epochs.
        losses: float32 [steps], this rank's part of each step's mean loss.
        correct: int64 [], this rank's right answers in this epoch.
        seconds: spent on this epoch's steps so far.
        rows, gate_rows: the tables so far.
        compiled: whether torch.compile was chosen; None while that is open.
    """

    def __init__(
        self,
        model: nn.Module,
        stepper: Stepper,
        images: StoredImages,
        training: TrainingSection,
        shares: torch.Tensor | None = None,
    ) -> None:
        """
        Args:
            shares: float64 [K], of each class in an epoch; None: each image comes once.
        """
        self.model, self.stepper = model, stepper
        self.mean = WeightMean(model, training.ema_decay) if training.ema_decay else None
        self._images, self._training, self._shares = images, training, shares
        self._shuffle = Shuffle(training.seed)
        self.epoch, self.step, self.seconds = 1, 0, 0.0
        self.batches: tuple[torch.Tensor, ...] = ()
        self.losses = torch.zeros(0, device=images.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=images.device)
        self._resumed_losses: torch.Tensor | None = None
        self.rows: list[EpochRow] = []
        self.gate_rows: list[GateRow] = []
        self.compiled: bool | None = None
        self.torn = False  # inside an update: neither before nor after it

    @property
    def accumulate(self) -> int:
        """Pieces that each batch is cut into."""
        return self._training.accumulate

    def kept_model(self) -> nn.Module:
        """The network that is validated and kept."""
        return self.mean.model if self.mean else self.model

    def start_epoch(self, ranks: Ranks) -> None:
        """Deal the epoch's batches, also where some of them are done already."""
        if self._shares is None:
            order = self._shuffle.order(len(self._images))
        else:
            order = self._shuffle.sampled(self._images.labels, self._shares)
        least = smallest_batch(ranks.world, self._training.accumulate)
        self.batches = join_small_end(self._images.batches(self._training.batch_size, order), least)
        device = self._images.device
        self.losses = torch.zeros(len(self.batches), device=device)
        done = self._resumed_losses
        if done is None or len(done) != len(self.batches):
            self.step, self.seconds = 0, 0.0
            self.correct = torch.zeros((), dtype=torch.int64, device=device)
        elif ranks.main:  # the sums of all ranks are in the checkpoint
            self.losses.copy_(done)
        else:
            self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self._resumed_losses = None

    def advance(self, loss: torch.Tensor, hits: torch.Tensor) -> None:
        """Count a step that has reached the weights."""
        self.losses[self.step] = loss
        self.correct += hits
        self.step += 1
        if self.mean:
            self.mean.update(self.model, (self.epoch - 1) * len(self.batches) + self.step)

    def end_epoch(self, row: EpochRow, gate_rows: list[GateRow]) -> None:
        """The epoch is validated; the next one begins."""
        self.rows.append(row)
        self.gate_rows += gate_rows
        self.epoch, self.step, self.seconds, self.batches = self.epoch + 1, 0, 0.0, ()

    # --- checkpoints

    def checkpoint(self, facts: Mapping[str, Any]) -> Checkpoint:
        """This moment; `facts` about the run are added to those about the position.

        In the middle of a step, the moment before it.
        """
        weights = dict(self.model.state_dict())
        if self.stepper.in_step:
            weights.update(self.stepper.buffers_before())
        parts = {"model": weights, "optimizer": self.stepper.optimizer_state()}
        if self.mean:
            parts["mean"] = self.mean.state()
        tensors = {f"{part}.{key}": value for part, values in parts.items() for key, value in values.items()}
        tensors["shuffle"] = self._shuffle.state(before=bool(self.batches))
        if self.batches:
            tensors["losses"], tensors["correct"] = self.losses, self.correct
        position = {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "compiled": self.compiled,
            "rows": [dataclasses.astuple(row) for row in self.rows],
            "gate_rows": [dataclasses.astuple(row) for row in self.gate_rows],
        }
        return Checkpoint(tensors, json.loads(json.dumps({**position, **facts}, allow_nan=False)))

    def restore(self, checkpoint: Checkpoint, source: str) -> None:
        """Go on from `checkpoint`.

        Raises:
            WeightsError: it is of another network.
        """
        load_state(self.model, checkpoint.part("model"), source)
        self.stepper.load_optimizer_state(checkpoint.part("optimizer"))
        if self.mean:
            averaged = checkpoint.part("mean")
            if averaged:
                self.mean.load(averaged)
        facts = checkpoint.facts
        self.epoch, self.step, self.seconds = facts["epoch"], facts["step"], facts["seconds"]
        self.compiled = facts["compiled"]
        self.rows = [EpochRow(*row) for row in facts["rows"]]
        self.gate_rows = [GateRow(*row) for row in facts["gate_rows"]]
        self._shuffle.restore(checkpoint.tensors["shuffle"])
        if "losses" in checkpoint.tensors:
            self._resumed_losses = checkpoint.tensors["losses"]
            self.correct = checkpoint.tensors["correct"].to(self._images.device, copy=True)


def join_small_end(batches: tuple[torch.Tensor, ...], least: int) -> tuple[torch.Tensor, ...]:
    """`batches`, the last of them joined to the one before where it has fewer than `least` images."""
    if len(batches) > 1 and len(batches[-1]) < least:
        return (*batches[:-2], torch.cat(batches[-2:]))
    return batches
