"""All epochs of a training, with validation after each, until they are over or somebody wants the end."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from functools import partial

from torch import nn

from samdeploy.bundle.names import WEIGHTS_FILE
from samdeploy.models import build_model, load_weights
from samdeploy.models.registry import calmer_training
from samdeploy.train.checkpoints.state import TrainState
from samdeploy.train.loop.batches import StoredImages
from samdeploy.train.loop.epoch import Stopped, diverged, loss_text, train_epoch
from samdeploy.train.loop.frozen import frozen_weights, training_mode
from samdeploy.train.loop.measure import Measured, Split, measure
from samdeploy.train.recipe.recipe import TrainingSection
from samdeploy.train.surroundings import Surroundings
from samdeploy.train.watch.activations import headroom_warning, measure_activations
from samdeploy.train.watch.history import EpochRow


@dataclass(frozen=True, slots=True)
class Splits:
    """What is learnt and measured."""

    train: StoredImages
    val: Split
    test: Split


def fit(state: TrainState, splits: Splits, around: Surroundings) -> None:
    """All epochs that are left, or fewer where the validation stops getting better.

    Raises:
        TrainingError: a loss is not finite, or a checkpoint cannot be written.
        Stopped: somebody wants the end; the state is between two steps.
    """
    training, ranks, run = around.recipe.training, around.ranks, around.run
    arch, options = run.record.arch, run.record.options
    start, first = time.perf_counter(), state.epoch
    curves = around.curves
    warned = bool(state.gate_rows) and headroom_warning(state.gate_rows) is not None
    while not is_over(state, training, run.record.best_epoch):
        if not state.batches:
            state.start_epoch(ranks)
        state.stepper.freeze(frozen_weights(state.model, arch, training, state.epoch))
        training_mode(state.model)
        figures = train_epoch(state, around)
        validation_start = time.perf_counter()
        kept = state.kept_model()
        with around.stop.interruptible():
            ranks.equalise(kept.buffers())
            val = measure(kept, splits.val, ranks, partial(_check_stop, around))
            if not math.isfinite(val.loss):
                raise diverged(f"the validation loss is {val.loss} after epoch {state.epoch}", around.recipe)
            gates = measure_activations(arch, kept, splits.val, state.epoch) if ranks.main else []
        row = EpochRow(
            epoch=state.epoch,
            learning_rate=figures.rate,
            train_loss=figures.loss,
            train_top1=figures.top1,
            val_loss=val.loss,
            val_top1=val.top1,
            val_balanced_accuracy=val.score("balanced_accuracy"),
            val_macro_f1=val.score("macro_f1"),
            images_per_s=figures.images_per_s,
            seconds=state.seconds + time.perf_counter() - validation_start,
        )
        state.end_epoch(row, gates)
        best = run.epoch(state.rows, kept, state.gate_rows)
        left = (time.perf_counter() - start) / (row.epoch - first + 1) * (training.epochs - row.epoch)
        if row.epoch == first:
            print(_HEADER, file=sys.stderr)
        print(_epoch_line(row, training.epochs, best, left), file=sys.stderr)
        warning = headroom_warning(gates, calmer_training(arch, options)) if gates and not warned else None
        if warning:
            warned = True
            print(warning, file=sys.stderr)
        if ranks.main:
            curves.after_epoch(state.rows, state.gate_rows, last=is_over(state, training, run.record.best_epoch))
        if around.saver.due(epoch_end=True):
            around.saver.write(state)
        _check_stop(around)
    if len(state.rows) < training.epochs:
        print(f"stopped: no better validation in {training.patience} epochs", file=sys.stderr)


def is_over(state: TrainState, training: TrainingSection, best_epoch: int) -> bool:
    """Whether no epoch is to follow those in `state.rows`."""
    done = len(state.rows)
    return done >= training.epochs or bool(training.patience and done and done - best_epoch >= training.patience)


def measure_test(model: nn.Module, splits: Splits, around: Surroundings) -> Measured:
    """The one look at the test images, with the best weights as they are on disk.

    Args:
        model: gives architecture and device; its weights are left alone, since they may have to be saved yet.
    """
    return _measure_best(model, splits.test, around)


def remeasure_best(model: nn.Module, splits: Splits, around: Surroundings) -> None:
    """Measure the best weights so far on the validation images of now; what they reached on others does not compare.

    Args:
        model: as for `measure_test`.
    """
    record = around.run.record
    if record.best_epoch == 0:
        return
    val = _measure_best(model, splits.val, around)
    around.run.best_is_now(val)
    print(
        f"the best weights so far (epoch {record.best_epoch}): val top-1 {record.best_val_top1:.2f} % on the images "
        f"as they were, {val.top1:.2f} % as they are now; the latter counts",
        file=sys.stderr,
    )


def _measure_best(model: nn.Module, split: Split, around: Surroundings) -> Measured:
    record = around.run.record
    best = build_model(record.arch, len(record.classes), record.options).to(next(model.parameters()).device)
    if around.ranks.main:  # the file may be on another machine
        load_weights(best, around.run.path / WEIGHTS_FILE)
    around.ranks.equalise(best.state_dict().values())
    with around.stop.interruptible():
        return measure(best, split, around.ranks, partial(_check_stop, around))


def _check_stop(around: Surroundings) -> None:
    # Of several ranks none may leave the others alone; where measuring takes long, the thread of `Stop` saves.
    if around.stop.requested and around.ranks.world == 1:
        raise Stopped(around.stop.requested)


_COLUMNS = {
    "epoch": 9, "loss": 8, "top-1 %": 8, "val loss": 9, "val top-1": 9, "images/s": 8, "seconds": 8, "time left": 9
}  # fmt: skip
_HEADER = " ".join(f"{name:>{width}}" for name, width in _COLUMNS.items())


def _epoch_line(row: EpochRow, epochs: int, best: bool, seconds_left: float) -> str:
    minutes, seconds = divmod(round(seconds_left), 60)
    left = f"{minutes}:{seconds:02d}" if row.epoch < epochs else ""
    cells = (
        f"{row.epoch}/{epochs}",
        loss_text(row.train_loss),
        f"{row.train_top1:.2f}",
        loss_text(row.val_loss),
        f"{row.val_top1:.2f}",
        f"{row.images_per_s:,.0f}",
        f"{row.seconds:.1f}",
        left,
    )
    line = " ".join(f"{cell:>{width}}" for cell, width in zip(cells, _COLUMNS.values(), strict=True))
    return f"{line} {'best' if best else ''}".rstrip()
