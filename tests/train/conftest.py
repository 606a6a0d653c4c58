"""A data set so small that a real training takes about a second, and real processes that train it."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy.train.loop import train as loop
from samdeploy.train.recipe.load import load_recipe
from samdeploy.train.recipe.recipe import Recipe
from tests.train.started import SMALL, Started, make_small
from tests.train.stopping import stopping

# Per class.  With batches of 7: train ends in a batch of one, test in a partial one.
COUNTS = {"train": 11, "val": 4, "test": 5}

RECIPE = """
[data]
name = "folder"
[model]
arch = "sam-resnet18"
gate = "identity"
pretrained = false
[image]
height = 32
width = 32
[augment]
flip = false
crop_scale = 1.0
policy = "none"
[training]
epochs = 2
batch_size = 7
learning_rate = 1e-3
schedule = "constant"
warmup_epochs = 0
clip_norm = 0.0
weight_decay = 0.0
label_smoothing = 0.0
ema_decay = 0.0
device = "cpu"
precision = "fp32"
"""


# Everything that has a state of its own: mean, pieces, augmentation with chance, warm-up and cosine, weight decay.
EVERYTHING = (
    "epochs=3",
    "ema_decay=0.9",
    "accumulate=2",
    "augment.flip=true",
    "augment.crop_padding=2",
    "schedule=cosine",
    "warmup_epochs=1",
    "weight_decay=0.1",
    "clip_norm=1",
    "patience=0",
    "sampling=square_root",
    "layer_decay=0.9",
    "monitor=macro_f1",
)


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder data set of 8x8 images; the classes overlap, so that accuracy is not simply 100 %."""
    root = tmp_path_factory.mktemp("images")
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
def recipe(examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Recipe]:
    """recipe(*overrides) -> the tiny recipe, over `examples`."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)

    def make(*overrides: str) -> Recipe:
        return load_recipe(path, [f"data.root={examples}", *overrides])

    return make


@pytest.fixture(scope="module")
def small_network() -> Iterator[None]:
    """What `make_small` says while the tests of a file run, also in processes that `start` starts."""
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        patch.setenv(SMALL, "1")
        yield


@pytest.fixture(scope="module")
def everything(recipe: Callable[..., Recipe], small_network: None) -> Recipe:
    return recipe(*EVERYTHING)


@pytest.fixture(scope="module")
def undisturbed(everything: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return loop.train(everything, runs_root=tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def stopped_once(everything: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after step 2 of 3 of its second epoch.  Copy it before going on with it."""
    root = tmp_path_factory.mktemp("stopped")
    with stopping(2, 2), pytest.raises(SystemExit):
        loop.train(everything, runs_root=root)
    return next(root.iterdir())


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped_once, tmp_path / "runs" / stopped_once.name))


@pytest.fixture(scope="session")
def start(environment: dict[str, str]) -> Iterator[Callable[..., Started]]:
    """`start(*arguments, cwd=folder, **variables)`: `samdeploy` in a real process, with these environment variables.

    Each is forked off one server that has imported everything and computed nothing: importing takes seconds, and with
    four processes most of a test's time.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["samdeploy.cli", "samdeploy.train.loop.train", "samdeploy.train.watch.curves"])
    begun: list[Started] = []

    def make(*arguments: str | Path, cwd: Path, **variables: str) -> Started:
        begun.append(
            Started(
                context, tuple(map(str, arguments)), cwd, {**environment, SMALL: os.environ.get(SMALL, ""), **variables}
            )
        )
        return begun[-1]

    yield make
    for one in begun:
        if one.process.is_alive():
            one.process.kill()
        one.process.join()
