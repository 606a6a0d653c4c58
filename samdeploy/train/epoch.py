"""One pass over the training pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from samdeploy.errors import TrainingError
from samdeploy.progress import progress_bar
from samdeploy.train.pictures import Pictures
from samdeploy.train.recipe import Recipe
from samdeploy.train.schedule import learning_rate
from samdeploy.train.step import Stepper

# Steps between two looks at the losses.  A look waits for the GPU and empties its queue; on the CPU it costs nothing.
CHECK_EVERY = {"cuda": 50, "cpu": 1}


@dataclass(frozen=True, slots=True)
class EpochFigures:
    """What one epoch of training measured along the way.

    Attributes:
        loss: mean over the images, each with the weights of its step.
        top1: in percent, likewise.
        rate: the learning rate of the last step.
        images_per_s: training images per second.
    """

    loss: float
    top1: float
    rate: float
    images_per_s: float


def train_epoch(stepper: Stepper, pictures: Pictures, recipe: Recipe, epoch: int, order: torch.Tensor) -> EpochFigures:
    """Learn every picture once.

    Args:
        epoch: counted from 1.
        order: int64 [N], the permutation that the batches are cut from.

    Raises:
        TrainingError: a loss is not finite; names the first step where that was so.
    """
    training = recipe.training
    batches = pictures.batches(training.batch_size, order)
    losses = torch.zeros(len(batches), device=pictures.device)
    correct = torch.zeros((), dtype=torch.int64, device=pictures.device)
    every = CHECK_EVERY[pictures.device.type]
    rate, seen, status = 0.0, 0, ""
    start = time.perf_counter()
    with progress_bar(f"epoch {epoch}/{training.epochs}", len(pictures)) as advance:
        for step, rows in enumerate(batches):
            rate = learning_rate(training, (epoch - 1) * len(batches) + step, len(batches))
            losses[step], hits = stepper.step(*pictures.take(rows), rate)
            correct += hits
            seen += len(rows)
            if (step + 1) % every == 0 or step + 1 == len(batches):
                loss = check_finite(losses[: step + 1].tolist(), len(batches), recipe, epoch)
                speed = seen / (time.perf_counter() - start)
                status = f"loss {loss:.3f}  top-1 {100 * int(correct) / seen:.1f} %  {speed:,.0f} images/s"
            advance(len(rows), status)
    seconds = time.perf_counter() - start
    total = sum(loss * len(rows) for loss, rows in zip(losses.tolist(), batches, strict=True))
    return EpochFigures(total / seen, 100 * int(correct) / seen, rate, seen / seconds)


def check_finite(losses: Iterable[float], steps: int, recipe: Recipe, epoch: int) -> float:
    """The last of `losses`, which are those of steps 1, 2, ... of an epoch with `steps` steps.

    Raises:
        TrainingError: one is not finite.
    """
    loss = 0.0
    for step, loss in enumerate(losses, start=1):
        if not math.isfinite(loss):
            raise diverged(f"the training loss became {loss} at epoch {epoch}, step {step} of {steps}", recipe)
    return loss


def diverged(what: str, recipe: Recipe) -> TrainingError:
    """The error for a loss that is not finite, with the cures that this recipe has not taken yet."""
    rate = recipe.training.learning_rate
    cures = [f"lower the learning rate: --set training.learning_rate={rate / 10:g}"]
    if not recipe.training.clip_norm:
        cures.append("clip the gradient: --set training.clip_norm=1")
    if recipe.model.gate == "original":
        cures.append("start the attention from nothing: --set model.gate=identity")
    if recipe.training.precision == "fp16":
        cures.append("compute in a wider range: --set training.precision=bf16")
    return TrainingError(f"training diverged: {what} (learning rate {rate:g}); {', or '.join(cures)}")
