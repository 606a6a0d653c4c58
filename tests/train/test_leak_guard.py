"""The guard in front of training: the original work's mistake is refused, or said where the recipe wants that."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy.bundle.names import HASHES_FILE, LEAKS_FILE
from samdeploy.data.duplicates.image_hashes import digests_of, read_hashes
from samdeploy.errors import DatasetError, RecipeError
from samdeploy.images.decode import prepare
from samdeploy.runs.record import open_run
from samdeploy.train.loop import train as loop
from samdeploy.train.recipe.recipe import Recipe

pytestmark = pytest.mark.usefixtures("small_network")

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def tested_on_train(examples: Path, tmp_path: Path) -> Path:
    """A data set whose test folder is a copy of its training folder, under other names and as other files."""
    root = tmp_path / "leaky"
    shutil.copytree(examples, root)
    shutil.rmtree(root / "test")
    for file in (root / "train").rglob("*.png"):
        copy = root / "test" / file.parent.name / f"renamed {file.stem}.bmp"
        copy.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).save(copy)
    return root


def test_a_test_folder_that_is_the_training_folder_is_refused(
    tested_on_train: Path, recipe: MakeRecipe, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError) as caught:
        loop.train(recipe(f"data.root={tested_on_train}"), runs_root=tmp_path / "runs")
    text = str(caught.value)
    assert "22 of 22 test images (100.0 %) are also in train, with the same pixels; at most 2 % is allowed" in text
    assert str(tested_on_train / "test/bright/renamed 0.bmp") in text
    assert str(tested_on_train / "train/bright/0.png") in text
    assert "to train all the same: --set data.leaks=report. For example: " in text
    assert not (tmp_path / "runs").exists()  # before anything is written


def test_report_trains_and_says_so(
    tested_on_train: Path, recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = loop.train(recipe(f"data.root={tested_on_train}", "data.leaks=report", "epochs=1"), runs_root=tmp_path)
    assert (
        "22 of 22 test images (100.00 %) are also in train, with the same pixels, for example"
        in capsys.readouterr().err
    )
    overlaps = json.loads((run / LEAKS_FILE).read_text())["overlaps"]
    found = {(row["other"], row["split"]): (row["exact"], row["exact_percent"]) for row in overlaps}
    assert found == {("train", "val"): (0, 0.0), ("train", "test"): (22, 100.0), ("val", "test"): (0, 0.0)}


def test_an_honest_run_leaves_its_hashes_and_an_empty_report(
    examples: Path, recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = loop.train(recipe("epochs=1"), runs_root=tmp_path)
    assert "with the same pixels" not in capsys.readouterr().err
    overlaps = json.loads((run / LEAKS_FILE).read_text())["overlaps"]
    assert [(row["images"], row["exact"], row["near"], row["examples"]) for row in overlaps] == [
        (8, 0, 0, []), (10, 0, 0, []), (10, 0, 0, []),
    ]  # fmt: skip
    hashes = read_hashes(run / HASHES_FILE)
    assert {split: len(found) for split, found in hashes.items()} == {"train": 22, "val": 8, "test": 10}
    record = open_run(run)
    for split, found in hashes.items():
        images = np.stack([prepare(Path(name), record.preprocessing) for name in found.names])
        assert np.array_equal(found.digests, digests_of(images)), split
        assert all(Path(name).parents[1] == examples / split for name in found.names)


def test_the_recipe_knows_two_answers(recipe: MakeRecipe) -> None:
    assert recipe().data.leaks == "refuse"
    with pytest.raises(RecipeError, match=r"data\.leaks: 'ignore' found, one of refuse, report expected"):
        recipe("data.leaks=ignore")
