"""Recipes: what they accept, what they refuse and in which words, and that they survive being written."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from samdeploy.bundle.spec import Preprocessing
from samdeploy.data import DATASETS
from samdeploy.errors import InputError, RecipeError
from samdeploy.train.recipe import checks as recipe_checks
from samdeploy.train.recipe.dump import dump_recipe, recipe_table
from samdeploy.train.recipe.load import load_recipe
from samdeploy.train.recipe.recipe import AugmentSection, ModelSection
from samdeploy.train.recipe.source import RECIPES, recipe_names

MINIMAL = '[data]\nname = "digits"\n'


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
    assert set(recipe_names()) == {"folder", "aircraft-strong-448"}.union(*kinds)


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
    assert recipe.augment == AugmentSection()
    side = 192 if "aircraft" in name else 64
    assert recipe.image.preprocessing() == Preprocessing(side, side)
    assert recipe.model == ModelSection("sam-resnet50", True, {"gate": "original", "stem": "imagenet"})
    training = recipe.training
    assert (training.learning_rate, training.batch_size, training.epochs, training.patience) == (1e-4, 128, 45, 12)
    assert (training.schedule, training.weight_decay, training.clip_norm) == ("constant", 0, 0)


def test_a_file_may_leave_out_what_has_a_default_and_is_named_after_itself(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, MINIMAL))
    assert recipe.name == "mine"
    assert recipe.training.epochs == 45


def test_overrides_take_toml_bare_text_and_bare_keys(tmp_path: Path) -> None:
    recipe = load_recipe(
        written(tmp_path, MINIMAL),
        [
            "training.epochs=3",
            "schedule=cosine",
            "learning_rate = 1",
            "mean=[0, 0.5, 1]",
            "data.root=2024",
            "pretrained=a b.pth",
        ],
    )
    assert recipe.training.epochs == 3
    assert recipe.training.schedule == "cosine"
    assert recipe.training.learning_rate == 1.0
    assert isinstance(recipe.training.learning_rate, float)
    assert recipe.image.mean == (0.0, 0.5, 1.0)
    assert recipe.data.root == "2024"
    assert recipe.model.pretrained == "a b.pth"


def test_an_override_cannot_bring_in_a_second_key() -> None:
    with pytest.raises(RecipeError, match="printable text expected"):
        load_recipe("digits", ["training.seed=1\nepochs = 2"])


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
        "unknown key 'colour'; did you mean ",
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


def test_left_out_keys_mean_what_folder_toml_says(tmp_path: Path) -> None:
    folder = load_recipe("folder")
    assert recipe_checks.recipe_from_table({"name": "folder", "description": folder.description}, "") == folder
    assert load_recipe(written(tmp_path, "[training]\nepochs = 3\n")) == dataclasses.replace(
        folder, name="mine", description="", training=dataclasses.replace(folder.training, epochs=3)
    )


def test_unknown_recipes_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown recipe 'cifar'; did you mean 'cifar10' or"):
        load_recipe("cifar")
    with pytest.raises(InputError, match=r"nowhere\.toml: no such file or folder; a recipe's name, a \.toml"):
        load_recipe(tmp_path / "nowhere.toml")
    with pytest.raises(RecipeError, match=r"mine\.toml: not valid TOML: .*line 1"):
        load_recipe(written(tmp_path, "epochs 3"))
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe4"')
    with pytest.raises(RecipeError, match=r"latin\.toml: cannot be read as UTF-8 text"):
        load_recipe(tmp_path / "latin.toml")


def test_recipes_cannot_be_changed() -> None:
    recipe = load_recipe("digits")
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.training.epochs = 3  # type: ignore[misc]
    assert list(recipe_table(recipe)) == ["name", "description", "data", "model", "image", "augment", "training"]


def test_listing_recipes_loads_no_torch() -> None:
    code = "import sys, samdeploy.train.recipe.source as r; r.recipe_names(); print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


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


def test_a_run_named_for_its_recipe(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "recipe.toml").touch()
    with pytest.raises(InputError) as caught:
        load_recipe(tmp_path)
    assert str(caught.value) == (
        f"recipe {tmp_path}: is a run; to continue it: samdeploy train --resume {tmp_path}; to train its recipe again: "
        f"samdeploy train {tmp_path / 'recipe.toml'}"
    )


def test_extends(tmp_path: Path) -> None:
    mine = written(tmp_path, 'extends = "aircraft"\n[model]\narch = "sam-resnet18"\n[training]\nepochs = 45\n')
    recipe, base = load_recipe(mine, ["lr=1"]), load_recipe("aircraft")
    assert recipe.name == "mine" and recipe.data == base.data and recipe.model.arch == "sam-resnet18"
    assert (recipe.description, recipe.changed) == (base.description, ("model.arch", "training.learning_rate"))
    (tmp_path / "deeper").mkdir()
    deeper = tmp_path / "deeper" / "b.toml"
    deeper.write_text('extends = "../mine.toml"\ndescription = "own"\n[data]\nname = "folder"\n')
    last = load_recipe(deeper)
    assert (last.model, last.description, last.data.options, last.changed) == (recipe.model, "own", {}, ())
    deeper.write_text('extends = "../mine.toml"\n[training]\nseed = 5\n')
    assert load_recipe(deeper).changed == ("model.arch", "training.seed")


@pytest.mark.parametrize(
    ("extends", "message"),
    [
        ('"cifar"', r"mine\.toml: extends: unknown recipe 'cifar'; did you mean 'cifar10'"),
        ('"no.toml"', r"mine\.toml: extends: recipe .*no\.toml: no such file or folder"),
        ("3", r"mine\.toml: extends: 3 found, a recipe's name or the path of a \.toml expected"),
        ('"mine.toml"', r"circle: mine\.toml -> mine\.toml"),
        ('"base.toml"', r"recipe .*base\.toml: unknown key in \[training\] 'epoch'"),
    ],
)
def test_extends_refused(tmp_path: Path, extends: str, message: str) -> None:
    (tmp_path / "base.toml").write_text("[training]\nepoch = 3\n")
    with pytest.raises(RecipeError, match=message):
        load_recipe(written(tmp_path, f"extends = {extends}\n"))


def test_short_names_in_overrides() -> None:
    recipe = load_recipe("digits", ["lr=0.5", "image.size=48x32"])
    assert (recipe.training.learning_rate, recipe.image.height, recipe.image.width) == (0.5, 48, 32)
    assert load_recipe("digits", ["size=40"]).image.preprocessing() == Preprocessing(40, 40)
    with pytest.raises(RecipeError, match=r"'size=64x': pixels expected, as one number or as HEIGHTxWIDTH"):
        load_recipe("digits", ["size=64x"])


def test_folder_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pets", "digits"):
        (tmp_path / name / "cat").mkdir(parents=True)
    folder = load_recipe("folder")
    for name in ("pets", "pets/", str(tmp_path / "pets"), "./digits"):
        found = load_recipe(name)
        assert found == dataclasses.replace(folder, data=dataclasses.replace(folder.data, root=name))
    assert load_recipe("digits").data.name == "digits"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("https://x.org/a.zip", "is a URL; a recipe's name"),
        ("cat.jpg", "is an image; .*; name the folder whose folders are the classes: samdeploy train FOLDER"),
        ("pets.zip", "is an archive; .*; unpack it, then: samdeploy train FOLDER"),
        ("w.pth", "is a weight file; .*model.pretrained=w.pth"),
        ("-", "is standard input"),
    ],
)
def test_what_is_no_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str) -> None:
    monkeypatch.chdir(tmp_path)
    if "/" not in name:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=what):
        load_recipe(name)


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
