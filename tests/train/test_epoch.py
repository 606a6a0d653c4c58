"""How a loss that is not finite is reported."""

from __future__ import annotations

import math

import pytest

from samdeploy.errors import TrainingError
from samdeploy.train.epoch import check_finite
from samdeploy.train.recipe import load_recipe


def test_finite_losses_give_the_last_one() -> None:
    assert check_finite([2.0, 1.0], 5, load_recipe("digits"), 1) == 1.0


def test_the_first_bad_step_is_named_with_all_cures() -> None:
    recipe = load_recipe("cifar10", ["learning_rate=0.02", "precision=fp16"])
    with pytest.raises(TrainingError) as caught:
        check_finite([2.3, 9.5, math.inf, math.nan, math.nan], 352, recipe, 7)
    assert str(caught.value) == (
        "training diverged: the training loss became inf at epoch 7, step 3 of 352 (learning rate 0.02); "
        "lower the learning rate: --set training.learning_rate=0.002, or clip the gradient: --set "
        "training.clip_norm=1, or start the attention from nothing: --set model.gate=identity, or compute in a wider "
        "range: --set training.precision=bf16"
    )


def test_cures_that_were_taken_are_not_offered() -> None:
    recipe = load_recipe("digits", ["learning_rate=1", "clip_norm=1", "gate=identity"])
    with pytest.raises(TrainingError) as caught:
        check_finite([math.nan], 10, recipe, 1)
    assert str(caught.value) == (
        "training diverged: the training loss became nan at epoch 1, step 1 of 10 (learning rate 1); "
        "lower the learning rate: --set training.learning_rate=0.1"
    )
