"""A recipe written as TOML: complete, equal, and with the comments of its file."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from samdeploy.train.recipe.dump import dump_recipe, recipe_table
from samdeploy.train.recipe.load import load_recipe
from samdeploy.train.recipe.recipe import Recipe
from samdeploy.train.recipe.source import RECIPES, recipe_names

OVERRIDES = ["epochs=9", "lr=0.5", "data.root=elsewhere", "mean=[0, 0.5, 1]", "fit=center_crop", "resize_short=448"]

# As people write TOML: each says what the file of the test below must keep, or is a form that needs care.
FORMS = {
    "nothing": "",
    "sections": (
        "# head\n\n[data]\n# above\nname = 'digits'  # beside\n\n[data.options]  # none\n\n"
        "[training]\nepochs = 3 # few\n"
    ),
    "dotted keys": "training.epochs = 3 # few\ndata.name = 'digits'\ndata.options.protocol = 'honest'\n",
    "inline tables": "data = {name = 'digits', options = {protocol = 'honest'}} # all\ntraining = {epochs = 3}\n",
    "out of order": "[data]\nname = 'digits' # n\n[training]\nepochs = 3\n[data.options]\nprotocol = 'honest' # p\n",
    "options first": "[data.options]\nprotocol = 'honest'\n[data]\nname = 'digits' # n\n",
    "dotted inside": "[data]\noptions.protocol = 'honest' # p\nname = 'digits'\n",
    "numbers": "[training]\nepochs = 0x10 # hex\nlearning_rate = 1 # no float\nweight_decay = 1_0e-3\n",
    "list": "[image]\nmean = [ # three\n  0.5, # R\n  0.25,\n  1, # B\n]\n",
    "long text": 'description = """\\\n  two \\\n  words""" # d\n',
    "quoted keys": '["data"]\n\'name\' = "digits" # n\n',
    "no last newline": "[training]\nepochs = 3 # few",
}


def written(folder: Path, content: str | bytes, name: str = "mine") -> Path:
    path = folder / f"{name}.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def check(recipe: Recipe, folder: Path) -> str:
    """Its text, once it is complete and reads back as the same recipe, whose text is the same."""
    text = dump_recipe(recipe)
    assert tomllib.loads(text) == recipe_table(recipe)
    again = load_recipe(written(folder, text, "again"))
    assert again == recipe
    assert dump_recipe(again) == text
    return text


def comments(text: str) -> list[str]:
    return re.findall(r"#.*", text)


@pytest.mark.parametrize("name", recipe_names())
def test_a_packaged_recipe_is_its_file(name: str, tmp_path: Path) -> None:
    file = (RECIPES / f"{name}.toml").read_text()
    assert check(load_recipe(name), tmp_path) == file
    changed = check(load_recipe(name, OVERRIDES), tmp_path)
    assert comments(changed) == comments(file)
    lines = changed.splitlines()
    keys = '["image.fit", "image.mean", "image.resize_short", "training.epochs", "training.learning_rate"]'
    assert lines[lines.index(f"changed = {keys}") - 1].startswith("description = ")
    assert len(lines) == len(file.splitlines()) + 1


@pytest.mark.parametrize("form", FORMS)
def test_comments_of_a_file_are_kept(form: str, tmp_path: Path) -> None:
    for overrides in ([], OVERRIDES):
        text = check(load_recipe(written(tmp_path, FORMS[form]), overrides), tmp_path)
        kept = [comment for comment in comments(FORMS[form]) if form != "list" or not overrides]
        assert comments(text) == kept


def test_only_changed_values_are_written_anew(tmp_path: Path) -> None:
    lines = dump_recipe(load_recipe(written(tmp_path, FORMS["numbers"]), ["epochs=17"])).splitlines()
    assert {"epochs = 17 # hex", "learning_rate = 1 # no float", "weight_decay = 1_0e-3"} < set(lines)


def test_a_missing_name_comes_first(tmp_path: Path) -> None:
    text = dump_recipe(load_recipe(written(tmp_path, FORMS["sections"])))
    assert text.startswith('name = "mine"\ndescription = ""\n# head\n\n[data]\n# above\nname = \'digits\'  # beside\n')


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_files_of_windows(start: bytes, tmp_path: Path) -> None:
    content = start + FORMS["sections"].replace("\n", "\r\n").encode()
    text = check(load_recipe(written(tmp_path, content)), tmp_path)
    assert "\r" not in text and "\ufeff" not in text
    assert comments(text) == comments(FORMS["sections"])


def test_an_extended_recipe_lends_its_comments(tmp_path: Path) -> None:
    written(tmp_path, '# base\nextends = "aircraft"\n[training]\nepochs = 45 # long\nseed = 3 # mine\n', "base")
    path = written(tmp_path, '# head\nextends = "base.toml" # gone\n[training]\nepochs = 5 # short\n')
    text = check(load_recipe(path, ["seed=4"]), tmp_path)
    assert "extends" not in text
    assert comments(text)[:2] == ["# head", "# short"]
    assert "seed = 4 # mine" in text.splitlines()
    assert 'level = "variant"  # 100 classes; "family" has 70, "manufacturer" 30' in text.splitlines()


def test_what_belongs_to_another_data_set_goes(tmp_path: Path) -> None:
    path = written(tmp_path, 'extends = "aircraft"\n[data]\nname = "digits" # mine\n')
    assert "variant" not in check(load_recipe(path), tmp_path)


def test_texts_that_toml_must_escape(tmp_path: Path) -> None:
    recipe = load_recipe("aircraft", ["data.options.level=family", 'description="a \\"b\\" ü\\n\\u007f\\u0001\\\\"'])
    assert recipe.description == 'a "b" ü\n\x7f\x01\\'
    check(recipe, tmp_path)


def test_a_recipe_without_a_file(tmp_path: Path) -> None:
    check(Recipe("mine", model=load_recipe("digits").model), tmp_path)
