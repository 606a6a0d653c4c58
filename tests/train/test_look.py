"""`samdeploy data`: what it counts, shows, warns of and measures."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy.data import Dataset
from samdeploy.data.dataset import array_samples
from samdeploy.errors import DatasetError, InputError
from samdeploy.train import look as look_module
from samdeploy.train.look import counts_table, look, spread_over_classes
from samdeploy.train.recipe.recipe import Recipe
from samdeploy.train.sheet import COLUMNS

MakeRecipe = Callable[..., Recipe]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(look_module, "_SECONDS", 0.05)
    monkeypatch.setenv("SAMDEPLOY_CACHE", str(tmp_path / "cache"))


def test_all_of_it(recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    look(recipe("augment.flip=true", "augment.cutmix=1"), tmp_path / "new" / "sheet.png")
    said = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert lines[:5] == ["class train val test", lines[1], "bright 11 4 5", "dark 11 4 5", "all 2 classes 22 8 10"]
    assert "smallest and largest class of train: 11 and 11 images" in said
    assert "leak guard  no image is in two splits" in said
    assert "as batches, mapped from the cache " in said
    assert max(map(len, said.splitlines()[:-1])) <= 80  # the last line ends with a path
    sheet = Image.open(tmp_path / "new" / "sheet.png")
    assert sheet.width > COLUMNS * 96
    pixels = np.asarray(sheet)
    first = pixels[23 : 23 + 96, 6 : 6 + 96]  # the first image as prepared: 32x32, each pixel three times
    assert (first[::3, ::3] == first[1::3, 1::3]).all()
    assert len(np.unique(first)) > 10


def test_a_leaky_set_is_shown_and_then_refused(
    examples: Path, recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "leaky"
    shutil.copytree(examples, root)
    shutil.rmtree(root / "test")
    shutil.copytree(root / "train", root / "test")
    with pytest.raises(DatasetError, match=r"to train all the same: --set data\.leaks=report"):
        look(recipe(f"data.root={root}"), tmp_path / "sheet.png")
    said = " ".join(capsys.readouterr().out.split())
    assert "leak guard 22 of 22 test images (100.00 %) are also in train, with the same pixels" in said
    assert (tmp_path / "sheet.png").is_file()


def test_a_sheet_that_cannot_be_written(recipe: MakeRecipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--sheet .*: cannot be written to \((Not a directory|File exists)\)"):
        look(recipe(), tmp_path / "file" / "sheet.png")


def samples(*labels: int) -> object:
    return array_samples(np.zeros((len(labels), 4, 4), np.uint8), np.array(labels, np.int64), "x")


def test_classes_without_images_stand_out() -> None:
    dataset = Dataset("mine", ("cat\x1b", "dog", "owl"), samples(0, 0, 2), samples(1), samples(0, 1, 2))  # type: ignore[arg-type]
    text = counts_table(dataset)
    assert ["dog", "0", "1", "1"] in [line.split() for line in text.splitlines()]
    assert "NO IMAGE in train of 1 class: dog" in text
    assert "NO IMAGE in val of 2 classes: cat\\x1b, owl" in text
    assert "in test of" not in text


def test_many_classes_are_summed_up() -> None:
    count = 30
    names = tuple(f"class {number} with a name that is far too long for a table" for number in range(count))
    dataset = Dataset("mine", names, *(samples(*range(count)) for _ in range(3)))  # type: ignore[arg-type]
    lines = counts_table(dataset).splitlines()
    assert any(line.startswith("... 11 more classes") and line.split()[-3:] == ["11", "11", "11"] for line in lines)
    assert max(map(len, lines)) <= 80


def test_images_of_the_sheet_come_from_all_classes() -> None:
    labels = np.array([0, 0, 0, 0, 1, 2, 2], np.int64)
    assert spread_over_classes(labels, 5).tolist() == [0, 4, 5, 1, 6]
    assert spread_over_classes(labels, 99).tolist() == [0, 4, 5, 1, 6, 2, 3]
