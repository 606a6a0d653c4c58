"""Training the head alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from samdeploy.errors import RecipeError
from samdeploy.models import build_model, read_pretrained, save_weights
from samdeploy.runs.record import open_run
from samdeploy.train.loop.train import train
from samdeploy.train.recipe.recipe import Recipe

ARCH = "timm:test_resnet"


def test_the_trunk_stays_as_it_was_loaded(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    torch.manual_seed(1)
    start = build_model(ARCH, 7)
    save_weights(start, tmp_path / "start.safetensors")
    settings = (f"model.arch={ARCH}", f"model.pretrained={tmp_path / 'start.safetensors'}", "size=32", "epochs=2")
    run = train(recipe(*settings, "training.freeze=trunk", "training.learning_rate=0.01"), runs_root=tmp_path / "runs")
    before, after = start.state_dict(), read_pretrained(ARCH, run).state
    assert open_run(run).status == "complete"
    learnt = {
        key for key in before if before[key].shape != after[key].shape or not torch.equal(before[key], after[key])
    }
    assert learnt == {"fc.weight", "fc.bias"}


def test_a_fresh_trunk_is_not_frozen(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="the network starts from random weights"):
        train(recipe("training.freeze=trunk", "model.pretrained=false"), runs_root=tmp_path)
