"""The learning rate, step by step."""

from __future__ import annotations

import pytest

from samdeploy.train.loop.schedule import learning_rate
from samdeploy.train.recipe.recipe import TrainingSection


def rates(training: TrainingSection, steps_per_epoch: int) -> list[float]:
    return [learning_rate(training, step, steps_per_epoch) for step in range(training.epochs * steps_per_epoch)]


def test_constant() -> None:
    assert rates(TrainingSection(epochs=2, learning_rate=0.5, schedule="constant", warmup_epochs=0), 3) == [0.5] * 6


def test_warm_up_rises_linearly_and_reaches_the_rate_at_its_last_step() -> None:
    training = TrainingSection(epochs=3, learning_rate=1.0, schedule="constant", warmup_epochs=2)
    assert rates(training, 2) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_cosine_starts_at_the_rate_and_passes_the_half_in_the_middle() -> None:
    training = TrainingSection(epochs=2, learning_rate=1.0, schedule="cosine", warmup_epochs=0)
    assert rates(training, 2) == pytest.approx([1.0, (1 + 2**-0.5) / 2, 0.5, (1 - 2**-0.5) / 2])


def test_cosine_begins_after_the_warm_up() -> None:
    training = TrainingSection(epochs=3, learning_rate=2.0, schedule="cosine", warmup_epochs=1)
    assert rates(training, 1) == pytest.approx([2.0, 2.0, 1.0])


def test_warm_up_may_fill_all_epochs() -> None:
    training = TrainingSection(epochs=2, learning_rate=1.0, schedule="cosine", warmup_epochs=2)
    assert rates(training, 1) == [0.5, 1.0]
