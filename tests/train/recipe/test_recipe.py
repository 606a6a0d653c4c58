"""Recipes: what they accept, what they refuse and in which words, and that they survive being written."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest

from samdeploy.bundle.spec import Preprocessing
from samdeploy.data import DATASETS
from samdeploy.train.recipe import checks as recipe_checks
from samdeploy.train.recipe.dump import dump_recipe, recipe_table
from samdeploy.train.recipe.load import load_recipe
from samdeploy.train.recipe.recipe import AugmentSection, ModelSection
from samdeploy.train.recipe.source import RECIPES, recipe_names

MINIMAL = '[data]\nname = "digits"\n'
NOTHING = AugmentSection(flip=False, crop_scale=1.0, policy="none")


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_built_in_names() -> None:
    kinds = [
        {name, f"{name}-original", f"{name}-strong"}
        for name in DATASETS
        if DATASETS[name].can_download or name == "digits"
    ]
    assert set(recipe_names()) == {"folder", "cifar10-cpu", "aircraft-strong-448"}.union(*kinds)


@pytest.mark.parametrize("name", recipe_names())
def test_built_in_recipes_state_every_key_and_keep_every_value(name: str) -> None:
    stated = tomllib.loads((RECIPES / f"{name}.toml").read_text())
    recipe = load_recipe(name)
    assert recipe.name == name
    assert tomllib.loads(dump_recipe(recipe)) == stated


def test_a_changed_recipe_says_so(tmp_path: Path) -> None:
    original = load_recipe("digits")
    assert original.changed == ()
    changed = load_recipe("digits", ["epochs=3", "data.root=elsewhere", "model.arch=sam-resnet34", "epochs=4"])
    assert (changed.description, changed.changed) == (original.description, ("model.arch", "training.epochs"))
    again = written(tmp_path, dump_recipe(changed))
    assert load_recipe(again).changed == changed.changed
    twice = load_recipe(again, ["epochs=5", "batch_size=64"])
    assert twice.changed == ("model.arch", "training.batch_size", "training.epochs")
    assert load_recipe("digits", ["data.root=elsewhere"]).changed == ()
    for named in (["epochs=3", "description=mine"], ["description=mine"]):
        assert (load_recipe(again, named).description, load_recipe(again, named).changed) == ("mine", ())


@pytest.mark.parametrize("name", recipe_names())
def test_descriptions_fit_a_list_of_recipes(name: str) -> None:
    description = load_recipe(name).description
    assert 20 < len(description) <= 120
    assert not description.endswith(".")


@pytest.mark.parametrize("name", recipe_names())
def test_only_originals_use_test_images_before_the_end(name: str) -> None:
    data = load_recipe(name).data
    expected = {"aircraft-original": "tested-on-train"}.get(name, "chosen-on-test" if "original" in name else "honest")
    assert data.options.get("protocol", "honest") == expected
    assert data.leaks == ("refuse" if expected == "honest" else "report")


@pytest.mark.parametrize("name", [name for name in recipe_names() if "strong" in name])
def test_strong_recipes(name: str) -> None:
    recipe = load_recipe(name)
    training, augment = recipe.training, recipe.augment
    assert recipe.model.options["gate"] == "identity"
    assert (training.schedule, training.patience) == ("cosine", 0)
    assert min(training.warmup_epochs, training.weight_decay, training.label_smoothing, training.ema_decay) > 0
    assert augment.crop_padding or augment.crop_scale < 1
    assert augment.flip == ("digits" not in name)  # a mirrored 2 is no digit
    assert augment.train_size <= recipe.image.height


@pytest.mark.parametrize(
    "name", [*(name for name in recipe_names() if "original" in name), "cifar10", "cifar100", "aircraft"]
)
def test_published_protocol(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.augment == NOTHING
    side = 192 if "aircraft" in name else 64
    assert recipe.image.preprocessing() == Preprocessing(side, side)
    assert recipe.model == ModelSection("sam-resnet50", True, {"gate": "original", "stem": "imagenet"})
    training = recipe.training
    assert (training.learning_rate, training.batch_size, training.epochs, training.patience) == (1e-4, 128, 45, 12)
    assert (training.schedule, training.weight_decay, training.clip_norm) == ("constant", 0, 0)
    assert (training.label_smoothing, training.ema_decay, training.warmup_epochs) == (0, 0, 0)


def test_a_file_may_leave_out_what_has_a_default_and_is_named_after_itself(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, MINIMAL))
    assert recipe.name == "mine"
    assert recipe.training.epochs == 45


def test_left_out_keys_mean_what_folder_toml_says(tmp_path: Path) -> None:
    folder = load_recipe("folder")
    assert recipe_checks.recipe_from_table({"name": "folder", "description": folder.description}, "") == folder
    assert load_recipe(written(tmp_path, "[training]\nepochs = 3\n")) == dataclasses.replace(
        folder, name="mine", description="", training=dataclasses.replace(folder.training, epochs=3)
    )


def test_padding_leaves_out_the_other_way_to_crop(tmp_path: Path) -> None:
    augment = load_recipe(written(tmp_path, "[augment]\ncrop_padding = 4\n")).augment
    assert (augment.crop_padding, augment.crop_scale, augment.policy) == (4, 1, "trivial")


def test_recipes_cannot_be_changed() -> None:
    recipe = load_recipe("digits")
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.training.epochs = 3  # type: ignore[misc]
    assert list(recipe_table(recipe)) == ["name", "description", "data", "model", "image", "augment", "training"]
