"""What a recipe may not say, in which words, and what belongs to an architecture."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from samdeploy.errors import RecipeError
from samdeploy.train.recipe import checks as recipe_checks
from samdeploy.train.recipe.dump import dump_recipe, recipe_table
from samdeploy.train.recipe.load import load_recipe
from samdeploy.train.recipe.recipe import ModelSection
from tests.train.recipe.test_recipe import MINIMAL, written


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    text = """
    colour = 1
    [data]
    name = "digit"
    [model]
    epochs = 3
    arch = "resnet50"
    [trainin]
    [training]
    epoch = 3
    batch_size = 1
    learning_rate = "fast"
    label_smoothing = 1.0
    patience = true
    schedule = "linear"
    device = "gpu"
    weight_decay = nan
    checkpoint_minutes = nan
    [image]
    std = [1, 2]
    """
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(tmp_path, text))
    message = str(caught.value)
    assert "mine.toml: 15 problems: " in message
    for part in (
        "unknown key 'colour'. Valid: ",
        "unknown data.name 'digit'; did you mean 'digits'?",
        "key 'epochs' stands in [model] but belongs in [training]",
        "unknown model.arch 'resnet50'; did you mean 'sam-resnet50'",
        "unknown section 'trainin'; did you mean 'training'?",
        "unknown key in [training] 'epoch'; did you mean 'epochs'",
        "training.batch_size: 1 found, at least 2 expected",
        "training.learning_rate: 'fast' found, a finite number such as 0.001 expected",
        "training.label_smoothing: 1.0 found, below 1 expected",
        "training.patience: True found, an integer expected",
        "training.schedule: 'linear' found, one of constant, cosine expected",
        "training.device: 'gpu' found, 'auto', 'cpu', 'cuda' or 'cuda:N' expected",
        "training.weight_decay: nan found, a finite number such as 0.001 expected",
        "training.checkpoint_minutes: nan found, a number expected",
        "image.std: [1, 2] found, a list of 3 numbers expected",
    ):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "override 'epochs': section.key=value expected, for example training.epochs=3"),
        ("=3", "override '=3': section.key=value expected"),
        ("training={}", "override 'training={}': a whole section found; its keys one by one expected"),
        ("training={epochs=3}", "a whole section found; its keys one by one expected, for example training.epochs=3"),
        ("training.epochs.x=3", "override 'training.epochs.x=3': 'epochs' is a value, not a section"),
        ("epochs=0", "recipe digits: training.epochs: 0 found, at least 1 expected"),
        ("learning_rate=0", "training.learning_rate: 0 found, above 0 expected"),
        ("epochs=2.5", "training.epochs: 2.5 found, an integer expected"),
        ("fit=center_crop", "recipe digits: image: resize_short belongs to fit 'center_crop' and to no other"),
        ("resize_short=40", "image: resize_short belongs to fit 'center_crop' and to no other"),
        ("std=[0, 1, 1]", "image: std (0.0, 1.0, 1.0) found, every value must be above 0"),
        ("warmup_epochs=13", "training.warmup_epochs: 13 found, at most epochs = 12 expected"),
        ("pretrained=", "model.pretrained: '' found, true, false or a path as a string expected"),
        ("pretrained=3", "model.pretrained: 3 found, true, false or a path as a string expected"),
        ("name=../x", "name: '../x' found, a name of letters, digits"),
        ("data.options.level=[1]", "data.options: [1] found at 'level', a section of texts, numbers and booleans"),
        ("data.root=", "data.root: '' found, a folder expected"),
    ],
)
def test_impossible_values(override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("digits", [override])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.epoch=3", "unknown key data.epoch; did you mean training.epochs?"),
        ("model.lr=1", "unknown key model.lr; it is called training.learning_rate here"),
        ("training.bs=1", "unknown key training.bs; it is called training.batch_size here"),
        ("imgsz=64", "unknown key 'imgsz'; it is called image.height and image.width here"),
        ("training.epoch=3", "unknown key in [training] 'epoch'; did you mean 'epochs'?"),
        ("training.xyzzy=3", "unknown key in [training] 'xyzzy'. Valid: epochs, "),
    ],
)
def test_an_unknown_key_is_looked_for_in_every_section(override: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("digits", [override])
    assert said in str(caught.value)


def test_other_tools_names_lead_to_keys_that_exist() -> None:
    """A renamed key must not leave its old name in the advice."""
    for path in {path for paths in recipe_checks.ELSEWHERE.values() for path in paths}:
        section, _, key = path.partition(".")
        assert key in {field.name for field in dataclasses.fields(recipe_checks.SECTIONS[section])}


def test_options_of_the_family_are_keys_of_model(tmp_path: Path) -> None:
    recipe = load_recipe("digits", ["gate=identity"])
    assert recipe.model == load_recipe("digits", ["model.gate=identity"]).model
    assert list(recipe_table(recipe)["model"].items()) == [
        ("arch", "sam-resnet18"), ("gate", "identity"), ("stem", "imagenet"), ("pretrained", False)
    ]  # fmt: skip
    assert load_recipe(written(tmp_path, MINIMAL)).model.options == {"gate": "identity", "stem": "imagenet"}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.gat=none", "unknown key in [model] 'gat'; did you mean 'gate'?"),
        ("model.gate=tanh", "unknown model.gate 'tanh'. Valid: identity, original, bounded, none"),
        (
            "model.gate=origin",
            "unknown model.gate 'origin'; did you mean 'original'? Valid: identity, original, bounded, none",
        ),
        ("model.gate=3", "unknown model.gate '3'. Valid: identity"),
        ("training.gate=none", "key 'gate' stands in [training] but belongs in [model]"),
        ("model.arch=tim:x", "model.arch: unknown family of networks 'tim'"),
        ("model.arch=3", "unknown model.arch '3'. Valid: sam-resnet18"),
    ],
)
def test_unknown_options_are_refused(override: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("digits", [override])
    assert said in str(caught.value)


def test_options_of_another_family_stay_in_the_recipes_file(tmp_path: Path) -> None:
    """An architecture of another family drops them; what is asked for beside it is refused."""
    recipe = load_recipe("digits", ["model.arch=torchvision:resnet18"])
    assert recipe.model == ModelSection("torchvision:resnet18", False, {})
    assert load_recipe("digits", ["model.arch=sam-resnet34"]).model.options == {"gate": "original", "stem": "imagenet"}
    with pytest.raises(RecipeError, match=r"model\.gate: torchvision:resnet18 has no such option; leave it out"):
        load_recipe("digits", ["model.arch=torchvision:resnet18", "model.gate=original"])
    mine = written(tmp_path, 'extends = "digits"\n[model]\narch = "torchvision:resnet18"\n')
    assert load_recipe(mine).model == recipe.model
    back = load_recipe(mine, ["arch=sam-resnet18"])
    assert back.model.options == {"gate": "identity", "stem": "imagenet"}
    assert load_recipe(written(tmp_path, dump_recipe(recipe))) == recipe
    with pytest.raises(RecipeError, match=r"mine\.toml: model\.gate: torchvision:resnet18 has no such option"):
        load_recipe(written(tmp_path, '[model]\narch = "torchvision:resnet18"\ngate = "none"\n'))


def test_an_architecture_brings_the_preprocessing_of_its_weights() -> None:
    image = load_recipe("folder", ["model.arch=timm:resnet18.a1_in1k"]).image
    assert (image.height, image.fit, image.resize_short, image.filter) == (224, "center_crop", 235, "bicubic")
    smaller = load_recipe("folder", ["model.arch=timm:resnet18.a1_in1k", "size=96", "image.filter=bilinear"]).image
    assert (smaller.height, smaller.width, smaller.resize_short, smaller.filter) == (96, 96, 100, "bilinear")
    fresh = load_recipe("folder", ["model.arch=timm:resnet18.a1_in1k", "model.pretrained=false"]).image
    assert fresh == load_recipe("folder").image


def test_networks_of_one_size_are_built_for_the_images() -> None:
    sized = ("image.height=32", "image.width=32")
    recipe = load_recipe("digits", ("model.arch=timm:vit_tiny_patch16_224", *sized))
    assert recipe.model.options == {"attention": "", "image_side": 32}
    assert load_recipe("digits", ("model.arch=timm:test_resnet", *sized)).model.options["image_side"] == ""
