"""Images for a network that was trained elsewhere: those that serve are never judged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from samdeploy.data import Dataset, open_dataset
from samdeploy.errors import DatasetError
from tests.data.sets.listed import png
from tests.data.sets.test_shards import write_tar
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
    with pytest.raises(DatasetError, match=r"63 images found, at least 64 expected .32 are set aside"):
        opened(tmp_path)


def test_copies_stay_on_one_side(tmp_path: Path) -> None:
    root = class_folders(tmp_path, {"cat": 40, "dog": 40})
    for number in range(40):
        shutil.copy(root / "cat" / f"{number}.png", root / "cat" / f"copy-{number}.png")
    _, val, test = names(opened(root))
    for number in range(40):
        pair = {str(root / "cat" / f"{number}.png"), str(root / "cat" / f"copy-{number}.png")}
        assert pair <= val or pair <= test


def listed(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    """A table of noise: (name, label, split)."""
    class_folders(folder, {"img": len(rows)})
    with (folder / "all.csv").open("w") as file:
        print("path,label" + (",split" if rows[0][2] else ""), file=file)
        for number, (name, label, split) in enumerate(rows):
            (folder / "img" / f"{number}.png").rename(folder / "img" / name)
            print(f"img/{name},{label}" + (f",{split}" if split else ""), file=file)
    return folder / "all.csv"


def test_list_without_splits(tmp_path: Path) -> None:
    found = []
    for place in ("a", "b"):
        path = listed(tmp_path / place, [(f"{number}.png", str(number % 3), "") for number in range(80)])
        dataset = opened(path)
        assert dataset.classes == ("0", "1", "2")
        train, val, test = names(dataset)
        assert train == val and len(val) == 32 and len(test) == 48 and not val & test
        found.append({Path(name).name for name in val})
    assert found[0] == found[1]


def test_list_with_splits(tmp_path: Path) -> None:
    path = listed(tmp_path, [(f"{n}.png", "ab"[n % 2], ("val", "test")[n // 4 % 2]) for n in range(40)])
    train, val, test = names(opened(path))
    assert train == val and {Path(name).stem for name in test} == {str(n) for n in range(40) if n // 4 % 2}


def test_copies_in_a_tar_are_set_aside_together(tmp_path: Path) -> None:
    members = {}
    for number in range(90):
        members |= {f"{number}.png": png(number % 30 % 25), f"{number}.cls": str(number % 25 % 2).encode()}
    dataset = opened(write_tar(tmp_path / "a.tar", members))
    read = {part: {samples.read(i) for i in range(len(samples))} for part, samples in
            (("val", dataset.val), ("test", dataset.test)) if samples.read}  # fmt: skip
    assert read["val"] and read["test"] and not read["val"] & read["test"]


def test_faults_of_a_list(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("path,label\nnone.png,cat\n")
    with pytest.raises(DatasetError, match=r"^table: image missing \(1 row\): labels\.csv:2"):
        opened(path)
    path.write_text("path,label\n")
    with pytest.raises(DatasetError, match="no images are listed"):
        opened(path)
