"""Where a recipe is found: by its name, as a file, as one that extends another, or as a folder of images."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from samdeploy.errors import InputError, RecipeError
from samdeploy.train.recipe.load import load_recipe
from tests.train.recipe.test_recipe import written


def test_unknown_recipes_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="unknown recipe, file or folder 'cifar'; did you mean the recipe 'cifar10' or"
    ):
        load_recipe("cifar")
    with pytest.raises(InputError, match=r"nowhere\.toml: no such file or folder; a recipe's name, a \.toml"):
        load_recipe(tmp_path / "nowhere.toml")
    with pytest.raises(RecipeError, match=r"mine\.toml: not a valid recipe .TOML.: .*line 1"):
        load_recipe(written(tmp_path, "epochs 3"))
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe4"')
    with pytest.raises(RecipeError, match=r"latin\.toml: cannot be read as UTF-8 text"):
        load_recipe(tmp_path / "latin.toml")


def test_listing_recipes_loads_no_torch() -> None:
    code = "import sys, samdeploy.train.recipe.source as r; r.recipe_names(); print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_a_run_named_for_its_recipe(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "recipe.toml").touch()
    with pytest.raises(InputError) as caught:
        load_recipe(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: is a run; to continue it: samdeploy train --resume {tmp_path}; to train its recipe again: "
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
        ('"cifar"', r"mine\.toml: extends: unknown recipe, file or folder 'cifar'; did you mean the recipe 'cifar10'"),
        ('"no.toml"', r"mine\.toml: extends: .*no\.toml: no such file or folder"),
        ("3", r"mine\.toml: extends: 3 found, a recipe's name or the path of a \.toml expected"),
        ('"mine.toml"', r"circle: mine\.toml -> mine\.toml"),
        ('"base.toml"', r"recipe .*base\.toml: unknown key in \[training\] 'epoch'"),
    ],
)
def test_extends_refused(tmp_path: Path, extends: str, message: str) -> None:
    (tmp_path / "base.toml").write_text("[training]\nepoch = 3\n")
    with pytest.raises(RecipeError, match=message):
        load_recipe(written(tmp_path, f"extends = {extends}\n"))


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
