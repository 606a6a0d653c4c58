"""Every recipe of a protocol as published, and of good practice, trains: an epoch over its data set's true format.

Images and network are smaller: what is tried is that the file's keys go together, with each other and with the set.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from samdeploy.data.sets import cifar, digits, fashion_mnist
from samdeploy.models.sam_resnet import resnet
from samdeploy.runs.record import open_run
from samdeploy.train.loop.train import train
from samdeploy.train.recipe.load import load_recipe
from samdeploy.train.recipe.source import recipe_names

NAMES = [name for name in recipe_names() if "-strong" in name or name.endswith("-original")]


@pytest.fixture
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """root(data set) -> the folder of a small one."""

    def make(name: str) -> Path:
        if name == "aircraft":
            request.getfixturevalue("aircraft_root")
        elif name == "fashion-mnist":
            monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")
            request.getfixturevalue("clothing")(tmp_path)
        elif name == "digits":
            whole = load_digits()
            few = SimpleNamespace(images=whole.images[:120], target=whole.target[:120])
            monkeypatch.setattr(digits, "load_digits", lambda: few)
        else:
            source, _ = request.getfixturevalue(f"small_{name}")
            monkeypatch.setattr(cifar, name.upper(), source)
        return tmp_path

    return make


def test_there_is_one_of_each_kind_for_every_set() -> None:
    assert len(NAMES) == 2 * len(("aircraft", "cifar10", "cifar100", "digits", "fashion-mnist")) + len(("448 px",))


@pytest.mark.parametrize("name", NAMES)
def test_it_trains(name: str, root: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arch in ("sam-resnet18", "sam-resnet50"):
        monkeypatch.setitem(resnet.ARCHITECTURES, arch, (resnet.BasicBlock, (1, 1, 1, 1)))
    whole = load_recipe(name)
    small = ["image.height=32", "image.width=32", "model.pretrained=false", "training.epochs=1", "training.device=cpu"]
    small += ["training.batch_size=8" if whole.data.name == "aircraft" else "training.batch_size=50"]
    small += ["augment.train_size=24"] if whole.augment.train_size else []
    small += ["training.warmup_epochs=1"] if whole.training.warmup_epochs else []
    small += ["data.val_fraction=0.4"] if whole.data.name in ("aircraft", "cifar100") else []  # one of each class
    recipe = load_recipe(name, [*small, f"data.root={root(whole.data.name)}"])
    record = open_run(train(recipe, runs_root=tmp_path / "runs"))
    assert record.status == "complete"
    assert record.test_images == record.counts["test"] > 0
    assert 0 <= (record.test_top1 or 0) <= 100
    measures: Any = record.provenance["test_measures"]
    assert measures.startswith("accuracy on training images" if name == "aircraft-original" else "accuracy on test")
    assert np.isfinite(record.best_val_loss)
