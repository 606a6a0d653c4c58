"""A data set so small that a real training takes about a second: dark against bright pictures, in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy.train.recipe import Recipe, load_recipe

# Per class.  With batches of 7: train ends in a batch of one, test in a partial one.
COUNTS = {"train": 11, "val": 4, "test": 5}

RECIPE = """
[data]
name = "folder"
[model]
arch = "sam-resnet18"
gate = "identity"
[image]
height = 32
width = 32
[training]
epochs = 2
batch_size = 7
learning_rate = 1e-3
device = "cpu"
precision = "fp32"
"""


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder data set of 8x8 pictures; the classes overlap, so that accuracy is not simply 100 %."""
    root = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for label, level in (("bright", 140), ("dark", 110)):
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(draw.normal(level + draw.normal(0, 20), 20, (8, 8, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def recipe(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Recipe]:
    """recipe(*overrides) -> the tiny recipe, over `pictures`."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)

    def make(*overrides: str) -> Recipe:
        return load_recipe(path, [f"data.root={pictures}", *overrides])

    return make
