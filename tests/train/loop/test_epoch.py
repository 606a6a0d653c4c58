"""How a loss or gradient that is not finite is reported, and what stops at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from samdeploy.errors import RecipeError, TrainingError
from samdeploy.train.loop import train as loop
from samdeploy.train.loop.epoch import diverged
from samdeploy.train.loop.step import Stepper
from samdeploy.train.recipe.load import load_recipe
from samdeploy.train.recipe.recipe import Recipe

pytestmark = pytest.mark.usefixtures("small_network")

MakeRecipe = Callable[..., Recipe]


def test_the_error_names_all_cures() -> None:
    recipe = load_recipe("cifar10", ["learning_rate=0.02", "precision=fp16", "model.gate=original", "clip_norm=0"])
    assert str(diverged("the training loss became inf at epoch 7, step 3 of 352", recipe)) == (
        "training diverged: the training loss became inf at epoch 7, step 3 of 352 (learning rate 0.02); "
        "lower the learning rate: --set training.learning_rate=0.002, or clip the gradient: --set "
        "training.clip_norm=1, or start with the attention switched off: --set model.gate=identity, or compute "
        "in a wider range: --set training.precision=bf16"
    )


def test_cures_that_were_taken_are_not_offered() -> None:
    recipe = load_recipe("digits", ["learning_rate=1", "clip_norm=1", "gate=bounded"])
    assert str(diverged("it did", recipe)) == (
        "training diverged: it did (learning rate 1); lower the learning rate: --set training.learning_rate=0.1"
    )


def test_the_first_layer_is_named(recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as caught:
        loop.train(recipe("learning_rate=1e30"), runs_root=tmp_path)
    assert (
        "at epoch 1, step 2 of 3 (learning rate 1e+30), first in the output of 'layer1.0.conv1' (Conv2d, its input "
    ) in str(caught.value)


def test_a_layer_in_the_middle_is_named(recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Attention that is started far too large: its output overflows, though everything before it is sound.
    build = loop.build_model

    def spoilt(*arguments: object, **options: object) -> object:
        model = build(*arguments, **options)  # type: ignore[arg-type]
        with torch.no_grad():
            model.layer3[0].sl.fc.weight.fill_(3e38)  # type: ignore[union-attr, operator]
        return model

    monkeypatch.setattr(loop, "build_model", spoilt)
    with pytest.raises(TrainingError, match=r"step 1 of 3 .*first in the output of 'layer3\.0\.sl\.fc' \(Linear, "):
        loop.train(recipe(), runs_root=tmp_path)


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(
    recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights: list[torch.Tensor] = []
    passes = Stepper.passes

    def spoilt(stepper: Stepper, rows: torch.Tensor, epoch: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        result = passes(stepper, rows, epoch, step)
        weight = stepper.model.layer2[0].conv1.weight  # type: ignore[index, union-attr]
        weights.append(weight.detach().clone())
        if step == 1:
            weight.grad[0] = math.inf  # type: ignore[index]
        return result

    monkeypatch.setattr(Stepper, "passes", spoilt)
    with pytest.raises(
        TrainingError,
        match=r"the gradient became infinite or nan at epoch 1, step 2 of 3 .* in the gradient of 'layer2\.0\.conv1",
    ):
        loop.train(recipe(), runs_root=tmp_path)
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[1], weights[2])  # the step was repeated with the weights that it met


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["batch_size=23"], "batch_size: 23 found, but there are 22 training images; .*batch_size=22"),
        (["batch_size=7", "accumulate=4"], r"batch_size: 7 found, at least 8 expected: 1 process\(es\) times 4 piece"),
        (
            ["sync_batch_norm=true"],
            "sync_batch_norm: true found, but PyTorch's SyncBatchNorm has kernels for GPUs only",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    recipe: MakeRecipe, tmp_path: Path, settings: list[str], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        loop.train(recipe(*settings), runs_root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_out_of_memory_names_the_batch_that_fits(
    recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = Stepper.passes

    def small(stepper: Stepper, rows: torch.Tensor, epoch: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        if len(rows) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
        return passes(stepper, rows, epoch, step)

    monkeypatch.setattr(Stepper, "passes", small)
    with pytest.raises(TrainingError) as caught:
        loop.train(recipe("batch_size=16"), runs_root=tmp_path)
    assert (
        "too small for batches of 16 (CUDA out of memory. Tried to allocate 2.00 GiB.); batches of 4 fit: "
        "--set training.batch_size=4, or --set training.accumulate=4 for the same steps in smaller pieces"
    ) in str(caught.value)
    assert list(tmp_path.iterdir()) == []
