"""A small list of images for every form: of two classes, four training images each, one of val and one of test."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy.data import SPLITS, Dataset, open_dataset
from samdeploy.errors import DatasetError

# (number, class, split); the image is grey, of the number times ten.
ROWS = [
    *((number, "cat" if number % 2 else "dog", "train") for number in range(8)),
    *((8, "cat", "val"), (9, "dog", "val"), (10, "cat", "test"), (11, "dog", "test")),
]


def png(number: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 10 * number, np.uint8)).save(content, "PNG")
    return content.getvalue()


def write_images(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, _, _ in ROWS:
        (folder / f"{number}.png").write_bytes(png(number))


def numbers(dataset: Dataset) -> dict[str, list[int]]:
    """Which images are in each split, from their pixels."""
    splits = {part: dataset.split(part) for part in SPLITS}
    return {part: [int(one.load(index)[0, 0, 0]) // 10 for index in range(len(one))] for part, one in splits.items()}


def check_all(dataset: Dataset) -> None:
    """Every image of `ROWS` is in one split."""
    assert sorted(number for of_split in numbers(dataset).values() for number in of_split) == list(range(len(ROWS)))


def check_rows(dataset: Dataset) -> None:
    """The data set is `ROWS`."""
    assert dataset.classes == ("cat", "dog")
    assert numbers(dataset) == {
        part: [number for number, _, split in ROWS if split == part] for part in ("train", "val", "test")
    }
    for part in SPLITS:
        names = [dataset.classes[label] for label in dataset.split(part).labels]
        assert names == [name for _, name, split in ROWS if split == part]


def refusal(name: str, root: Path, **options: str) -> str:
    with pytest.raises(DatasetError) as error:
        open_dataset(name, root, options=options)
    return str(error.value)


# Numbers of images, each of which is there three times, byte for byte; the label of each is its parity.
COPIED = [number for number in range(12) for _ in range(3)]


def check_copies(dataset: Dataset) -> None:
    """Copies of an image, which is one of `COPIED`, are on one side of each cut."""
    found = {part: set(of_split) for part, of_split in numbers(dataset).items()}
    assert all(found.values())
    assert sum(map(len, found.values())) == len(set(COPIED))
    assert sum(len(dataset.split(part)) for part in SPLITS) == len(COPIED)
    assert "24 copies of training images, byte for byte: kept on one side of each cut" in dataset.notes
