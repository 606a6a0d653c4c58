"""What only a GPU can show: mixed precision, and pictures that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from samdeploy.errors import TrainingError
from samdeploy.run import open_run
from samdeploy.train import pictures as pictures_file
from samdeploy.train.loop import train
from samdeploy.train.pictures import Pictures
from samdeploy.train.prepare import prepare_data
from samdeploy.train.recipe import Recipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU here"),
]
MakeRecipe = Callable[..., Recipe]


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16", "fp16"])
def test_trains_in_every_precision(recipe: MakeRecipe, tmp_path: Path, precision: str) -> None:
    run = train(recipe("device=auto", f"precision={precision}", "clip_norm=1", "epochs=8"), runs_root=tmp_path)
    record = open_run(run)
    assert record.status == "complete"
    assert record.provenance["device"] == torch.cuda.get_device_name()
    if precision != "auto":
        assert record.provenance["precision"] == precision
    assert record.best_val_top1 > 50


def test_the_first_bad_step_is_named_though_it_is_looked_for_later(recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="at epoch 1, step 2 of 3"):
        train(recipe("device=cuda", "precision=fp32", "learning_rate=1e30"), runs_root=tmp_path)


def test_pictures_that_do_not_fit_give_the_same_batches(recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    split = prepare_data(recipe()).splits["train"]
    device = torch.device("cuda", 0)
    resident = Pictures(*split, device)
    monkeypatch.setattr(pictures_file, "_SHARE", 0.0)
    copied = Pictures(*split, device)
    order = torch.randperm(22)
    for one, other in zip(resident.batches(7, order), copied.batches(7, order), strict=True):
        assert one.device.type == "cuda"
        assert other.device.type == "cpu"
        for a, b in zip(resident.take(one), copied.take(other), strict=True):
            assert a.device == b.device == device
            assert torch.equal(a, b)
