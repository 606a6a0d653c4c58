"""Images for a network that was trained elsewhere: those that serve are never judged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from samdeploy.data import Dataset, open_dataset
from samdeploy.errors import DatasetError
from tests.importing.imported import class_folders


def opened(root: Path) -> Dataset:
    return open_dataset("judged-folder", root, val_fraction=0.1)


def names(dataset: Dataset) -> tuple[set[str], set[str], set[str]]:
    train, val, test = ({str(name) for name in part.names} for part in (dataset.train, dataset.val, dataset.test))
    return train, val, test


def test_class_folders_alone(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "a", {"2": 30, "10": 40})
    dataset = opened(root)
    assert dataset.classes == ("2", "10")
    train, val, test = names(dataset)
    assert train == val and len(val) == 32 and len(test) == 38 and not val & test
    assert names(opened(root)) == (train, val, test)


def test_the_same_images_are_set_aside_anywhere(tmp_path: Path) -> None:
    found = []
    for place in ("a", "b"):
        root = class_folders(tmp_path / place, {"cat": 40, "dog": 40})
        found.append({Path(name).relative_to(root) for name in names(opened(root))[1]})
    assert found[0] == found[1]


def test_train_and_test(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", {"cat": 40, "dog": 40})
    class_folders(tmp_path / "test", {"cat": 2, "eel": 3})
    dataset = opened(tmp_path)
    train, val, test = names(dataset)
    assert dataset.classes == ("cat", "dog", "eel")
    assert (len(train), len(val), len(test)) == (48, 32, 5)
    assert not train & val and not test & (train | val)


def test_train_val_and_test(tmp_path: Path) -> None:
    for part, count in (("train", 40), ("val", 3), ("test", 2)):
        class_folders(tmp_path / part, {"cat": count, "dog": count})
    assert [len(part) for part in names(opened(tmp_path))] == [80, 6, 4]


def test_val_and_test(tmp_path: Path) -> None:
    for part in ("val", "test"):
        class_folders(tmp_path / part, {"cat": 3, "dog": 3})
    train, val, test = names(opened(tmp_path))
    assert train == val == set(map(str, (tmp_path / "val").rglob("*.png")))
    assert test == set(map(str, (tmp_path / "test").rglob("*.png")))


def test_too_few(tmp_path: Path) -> None:
    class_folders(tmp_path, {"cat": 30, "dog": 33})
    with pytest.raises(DatasetError, match=r"63 images found in .*, at least 64 expected: 32 are set aside"):
        opened(tmp_path)


def test_copies_stay_on_one_side(tmp_path: Path) -> None:
    root = class_folders(tmp_path, {"cat": 40, "dog": 40})
    for number in range(40):
        shutil.copy(root / "cat" / f"{number}.png", root / "cat" / f"copy-{number}.png")
    _, val, test = names(opened(root))
    for number in range(40):
        pair = {str(root / "cat" / f"{number}.png"), str(root / "cat" / f"copy-{number}.png")}
        assert pair <= val or pair <= test
