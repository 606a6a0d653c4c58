from __future__ import annotations

from pathlib import Path

import pytest

from samdeploy.data.sets.given import is_list_of_images, what_is_given
from samdeploy.train.recipe.load import load_recipe
from tests.data.sets.listed import png


def made(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(1) if name.endswith(".png") else b"")
    return root


CLASSES = ("train/cat/1.png", "train/dog/1.png")


@pytest.mark.parametrize(
    ("names", "kind", "files"),
    [
        (CLASSES, "folder", []),
        ((*CLASSES, "train.csv", "metadata.jsonl", "x.parquet", "x.tar"), "folder", []),
        (("train/1.png", "train.csv", "val.csv", "classes.csv"), "table", ["train.csv", "val.csv"]),
        (("images/1.png", "labels.csv"), "table", ["labels.csv"]),
        (("metadata.jsonl", "1.png"), "table", ["metadata.jsonl"]),
        (("train/metadata.csv", "train/1.png"), "table", ["train/metadata.csv"]),
        (("x.md", "data/test-0.parquet", "a.tar"), "table", ["data/test-0.parquet"]),
        (("dataset_dict.json", "train/data-0.arrow", "train/cache-1.arrow"), "table", ["train/data-0.arrow"]),
        (("a-10.tar", "a-9.tar", ".a-8.tar"), "shards", ["a-9.tar", "a-10.tar"]),
        (("notes.txt",), "folder", []),
    ],
)  # fmt: skip
def test_folders(tmp_path: Path, names: tuple[str, ...], kind: str, files: list[str]) -> None:
    found = what_is_given(made(tmp_path, *names))
    assert (found.kind, [found.short(file) for file in found.files]) == (kind, files)


def test_patterns(tmp_path: Path) -> None:
    made(tmp_path, "a-08.tar", "a-10.tar", "b.tar")
    found = what_is_given(tmp_path / "a-{08..10}.tar")
    assert (found.kind, [file.name for file in found.files]) == ("shards", ["a-08.tar", "a-09.tar", "a-10.tar"])
    assert [file.name for file in what_is_given(tmp_path / "*.tar").files] == ["a-08.tar", "a-10.tar", "b.tar"]
    assert is_list_of_images(tmp_path / "{a-08,b}.tar")
    assert not is_list_of_images(tmp_path / "c-{0..3}.tar")


def test_recipe_takes_the_set_that_its_root_holds(tmp_path: Path) -> None:
    table = made(tmp_path, "a.csv") / "a.csv"
    for recipe in (load_recipe("folder", [f"data.root={table}"]), load_recipe(table)):
        assert (recipe.data.name, recipe.data.root) == ("table", str(table))
    assert load_recipe("digits", [f"data.root={table}"]).data.name == "digits"
    tree = made(tmp_path / "tree", *CLASSES)
    assert load_recipe("folder", ["data.name=table", f"data.root={tree}"]).data.name == "folder"
    assert load_recipe("folder", ["data.name=table", "data.root=nowhere"]).data.name == "table"
