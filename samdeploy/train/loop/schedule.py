"""The learning rate as a function of the step."""

from __future__ import annotations

import math

from samdeploy.train.recipe.recipe import TrainingSection


def learning_rate(training: TrainingSection, step: int, steps_per_epoch: int) -> float:
    """The rate of one step.

    A linear rise over `warmup_epochs` (the first step already moves), then constant, or half a cosine that
    would reach zero one step after the last (SGDR without restarts, arXiv:1608.03983, equation 5).

    Args:
        step: counted from 0 over all epochs.
    """
    warmup = training.warmup_epochs * steps_per_epoch
    if step < warmup:
        return training.learning_rate * (step + 1) / warmup
    if training.schedule == "constant":
        return training.learning_rate
    progress = (step - warmup) / (training.epochs * steps_per_epoch - warmup)
    return training.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
