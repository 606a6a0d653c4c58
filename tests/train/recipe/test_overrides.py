"""What is set on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from samdeploy.bundle.spec import Preprocessing
from samdeploy.errors import RecipeError
from samdeploy.train.recipe.load import load_recipe
from tests.train.recipe.test_recipe import MINIMAL, written


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


def test_short_names_in_overrides() -> None:
    recipe = load_recipe("digits", ["lr=0.5", "image.size=48x32"])
    assert (recipe.training.learning_rate, recipe.image.height, recipe.image.width) == (0.5, 48, 32)
    assert load_recipe("digits", ["size=40"]).image.preprocessing() == Preprocessing(40, 40)
    with pytest.raises(RecipeError, match=r"'size=64x': pixels expected, as one number or as HEIGHTxWIDTH"):
        load_recipe("digits", ["size=64x"])
