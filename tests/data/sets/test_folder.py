from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from samdeploy.bundle.spec import Preprocessing
from samdeploy.data import Samples, load_images, open_dataset
from samdeploy.errors import NEXT_FAULT, DatasetError

Tree = Callable[..., None]

COMPLETE = {
    "train/dog/1.png": 10,
    "train/dog/2.png": 20,
    "train/cat/1.png": 30,
    "val/dog/3.png": 40,
    "val/cat/2.png": 50,
    "test/cat/3.png": 60,
}


def many(per_class: int, *classes: str, below: str = "") -> dict[str, int]:
    return {
        f"{below}{name}/{number}.png": number + 100 * index
        for index, name in enumerate(classes)
        for number in range(per_class)
    }


def below(root: Path, samples: Samples) -> list[str]:
    return [str(Path(name).relative_to(root)) for name in samples.names]


def refusal(root: Path, **arguments: float) -> str:
    with pytest.raises(DatasetError) as error:
        open_dataset("folder", root, **arguments)
    return str(error.value)


def test_three_folders(tmp_path: Path, image_tree: Tree) -> None:
    image_tree(tmp_path, COMPLETE)
    dataset = open_dataset("folder", tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert below(tmp_path, dataset.train) == ["train/cat/1.png", "train/dog/1.png", "train/dog/2.png"]
    assert dataset.train.labels.tolist() == [0, 1, 1]
    assert below(tmp_path, dataset.val) == ["val/cat/2.png", "val/dog/3.png"]
    assert below(tmp_path, dataset.test) == ["test/cat/3.png"]
    assert dataset.test.labels.tolist() == [0]
    assert np.array_equal(dataset.train.load(2), np.full((6, 5, 3), 20, dtype=np.uint8))
    assert dataset.notes == ("test: no images of 1 of 2 classes: dog",)


def test_val_is_cut_from_train_and_test_is_kept(tmp_path: Path, image_tree: Tree) -> None:
    image_tree(tmp_path, {**many(10, "a", "b", below="train/"), "test/a/x.png": 7})
    dataset = open_dataset("folder", tmp_path, val_fraction=0.2)
    assert np.bincount(dataset.train.labels).tolist() == [8, 8]
    assert np.bincount(dataset.val.labels).tolist() == [2, 2]
    assert below(tmp_path, dataset.test) == ["test/a/x.png"]
    assert dataset.notes == (
        "test: no images of 1 of 2 classes: b",
        f"no val folder in {tmp_path}: 4 training images are held out as val",
    )


def test_class_folders_directly_below_root(tmp_path: Path, image_tree: Tree) -> None:
    image_tree(tmp_path, many(50, "a", "b"))
    dataset = open_dataset("folder", tmp_path, val_fraction=0.25)
    # 20 % of 100 for test, then a quarter of the other 80 for val.
    assert np.bincount(dataset.test.labels).tolist() == [10, 10]
    assert np.bincount(dataset.val.labels).tolist() == [10, 10]
    assert np.bincount(dataset.train.labels).tolist() == [30, 30]
    everything = [name for part in (dataset.train, dataset.val, dataset.test) for name in below(tmp_path, part)]
    assert sorted(everything) == sorted(many(50, "a", "b"))
    for part in (dataset.train, dataset.val, dataset.test):
        for index, name in enumerate(below(tmp_path, part)):
            assert int(part.load(index)[0, 0, 0]) == many(50, "a", "b")[name]
            assert dataset.classes[part.labels[index]] == Path(name).parts[0]
    assert dataset.notes == (
        f"no test folder in {tmp_path}: 20 training images are held out as test",
        f"no val folder in {tmp_path}: 20 training images are held out as val",
    )


def test_seed_moves_val_and_never_test(tmp_path: Path, image_tree: Tree) -> None:
    image_tree(tmp_path, many(20, "a", "b"))
    first, again, other = (open_dataset("folder", tmp_path, seed=seed, val_fraction=0.2) for seed in (0, 0, 1))
    assert first.val.names == again.val.names
    assert first.val.names != other.val.names
    assert first.test.names == other.test.names
    assert first.test.names == open_dataset("folder", tmp_path, val_fraction=0.4).test.names


def test_order_is_natural_and_recursive(tmp_path: Path, image_tree: Tree) -> None:
    names = ["Class 2/a.png", "class 10/img10.png", "class 10/img2.PNG", "class 10/sub/deep/img1.png"]
    image_tree(tmp_path, {f"train/{name}": 0 for name in names} | {f"{p}/Class 2/x.png": 0 for p in ("val", "test")})
    dataset = open_dataset("folder", tmp_path)
    assert dataset.classes == ("Class 2", "class 10")
    assert below(tmp_path / "train", dataset.train) == [
        "Class 2/a.png",
        "class 10/img2.PNG",
        "class 10/img10.png",
        "class 10/sub/deep/img1.png",
    ]


def test_what_is_passed_over_is_named(tmp_path: Path, image_tree: Tree) -> None:
    image_tree(tmp_path, {**COMPLETE, "train/logo.png": 1, "train/cat/._1.png": 1, "train/.cache/x.png": 1})
    (tmp_path / "train/cat/notes.txt").write_text("a cat")
    (tmp_path / "train/labels.csv").write_text("1,cat")
    (tmp_path / "train/cat/Thumbs.db").write_text("")
    dataset = open_dataset("folder", tmp_path)
    assert len(dataset.train) == 3
    assert dataset.notes == (
        "train: 2 files skipped: 1 .csv, 1 .txt",
        "train: 3 hidden or system entries skipped: 1 ._*, 1 .cache, 1 Thumbs.db",
        f"train: 1 image outside of any class folder not used: {tmp_path / 'train/logo.png'}",
        "test: no images of 1 of 2 classes: dog",
    )


def test_links_to_files_and_class_folders_are_read(tmp_path: Path, image_tree: Tree) -> None:
    image_tree(tmp_path, {"store/1.png": 11, "store/2.png": 12, "more/3.png": 13, **many(1, "a", below="root/train/")})
    root = tmp_path / "root"
    for part, number in (("val", 1), ("test", 2)):
        (root / part / "a").mkdir(parents=True)
        (root / part / "a" / f"{number}.png").symlink_to(tmp_path / f"store/{number}.png")
    (root / "train/b").symlink_to(tmp_path / "more")
    dataset = open_dataset("folder", root)
    assert dataset.classes == ("a", "b")
    assert int(dataset.train.load(1)[0, 0, 0]) == 13
    assert int(dataset.val.load(0)[0, 0, 0]) == 11


def test_broken_link_is_reported_with_the_other_broken_images(tmp_path: Path, image_tree: Tree) -> None:
    image_tree(tmp_path, COMPLETE)
    (tmp_path / "train/cat/0.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "train/dog/2.png").write_bytes((tmp_path / "train/dog/2.png").read_bytes()[:50])
    (tmp_path / "train/dog/9.jpg").write_text("no image")
    with pytest.raises(DatasetError) as error:
        load_images(open_dataset("folder", tmp_path).train, Preprocessing(4, 4), description="train")
    text = str(error.value)
    assert text.startswith(f"train: 3 of 5 images cannot be read; replace or remove them:\n    {tmp_path}")
    assert f"{tmp_path / 'train/cat/0.png'}: no such file\n" in text
    assert f"{tmp_path / 'train/dog/2.png'}: damaged or truncated (" in text
    assert f"{tmp_path / 'train/dog/9.jpg'}: " in text


def test_test_folder_that_is_the_training_folder(tmp_path: Path, image_tree: Tree) -> None:
    image_tree(tmp_path, {name: grey for name, grey in COMPLETE.items() if not name.startswith("test")})
    (tmp_path / "test").symlink_to(tmp_path / "train")
    assert refusal(tmp_path).startswith(
        f"folder: 3 files are in two splits: {tmp_path / 'test/cat/1.png'} (test) and {tmp_path / 'train/cat/1.png'} "
        "(train), "
    )


def test_no_root(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == (
        f"{tmp_path / 'none'}: no such folder; a folder with <class>/ or train/<class>/ images expected"
    )
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / "file").startswith(f"{tmp_path / 'file'}: is a file; ")


def test_no_class_folders(tmp_path: Path, image_tree: Tree) -> None:
    image_tree(tmp_path, {"1.png": 0, "2.png": 0})
    assert refusal(tmp_path) == (
        f"folder: no class folders in {tmp_path} (2 images and 0 other files there); expected one folder of images per "
        f"class, for example {tmp_path / 'cat/1.jpg'}"
    )


def test_one_class(tmp_path: Path, image_tree: Tree) -> None:
    image_tree(tmp_path, many(9, "cat"))
    assert refusal(tmp_path) == f"folder: 1 class found in {tmp_path} (cat); at least 2 class folders expected"
    image_tree(tmp_path / "dataset", many(9, "cat", below="images/") | many(9, "dog", below="images/"))
    assert refusal(tmp_path / "dataset").endswith(
        f". images/ holds folders (cat, dog): --data {tmp_path / 'dataset/images'}?"
    )


def test_a_single_image_cannot_be_split(tmp_path: Path, image_tree: Tree) -> None:
    image_tree(tmp_path, {**many(9, "a", "b"), "c/only.png": 50})
    assert refusal(tmp_path) == (
        "folder: no test split can be cut from the training images: at least 2 different images per class expected, "
        "fewer found in 'c' (1). Add images or remove the class"
    )


def test_too_few_images_for_a_val_split(tmp_path: Path, image_tree: Tree) -> None:
    image_tree(tmp_path, {**many(3, "a", "b", below="train/"), "test/a/x.png": 7})
    assert refusal(tmp_path, val_fraction=0.1) == (
        "folder: 1 of 6 images would be val (0.1), but val and train need 2 each, one per class; "
        "add images, or --set data.val_fraction=0.34"
    )
    assert len(open_dataset("folder", tmp_path, val_fraction=0.34).val) == 2


def test_copies_stay_on_one_side_where_the_splits_are_cut(tmp_path: Path, image_tree: Tree) -> None:
    image_tree(tmp_path, many(20, "a", "b"))
    for file in list(tmp_path.rglob("*.png")):
        for number in range(4):
            shutil.copy(file, file.with_name(f"copy {number} of {file.name}"))
    dataset = open_dataset("folder", tmp_path)
    contents = [{Path(name).read_bytes() for name in dataset.split(part).names} for part in ("train", "val", "test")]
    assert sum(map(len, contents)) == len(set.union(*contents)) == 40
    assert [len(dataset.split(part)) for part in ("train", "val", "test")] == [145, 15, 40]
    assert dataset.cut == ("val", "test")
    assert "160 copies of training images, byte for byte: kept on one side of each cut" in dataset.notes


def test_all_faults_are_reported_at_once(tmp_path: Path, image_tree: Tree) -> None:
    image_tree(tmp_path, COMPLETE)
    image_tree(
        tmp_path,
        {
            **{f"train/{name}/1.png": number for number, name in enumerate(("Cat", "caf\u00e9", "cafe\u0301", "dog "))},
            **{"val/DOG/1.png": 5, "val/cow/1.png": 6, "test/a\nb/1.png": 7},
        },
    )
    for name in "mnopqr":
        (tmp_path / "train" / name).mkdir()
    (tmp_path / "train/m/readme.txt").touch()
    (tmp_path / "train/lost").symlink_to("/no/such/drive")
    (tmp_path / "train/cat/2.png").symlink_to("gone.png")
    (tmp_path / "train/dog/9.jpg").write_text("not an image")
    (tmp_path / "val/cat/2.png").unlink()
    (tmp_path / "val/cat/2.png").hardlink_to(tmp_path / "train/cat/1.png")
    text = refusal(tmp_path)
    for part in (
        r"'cafe\u0301' and 'caf\xe9'",
        "'Cat' and 'cat'",
        r"val: no images of 8 of 12 classes: 'cafe\u0301', café, m, ",
        "'dog' and 'dog '",
        "6 of 12 class folders in",
        "m (1 file skipped: 1 .txt), n, o, p, q and 1 more. Add images or remove the folder",
        "train/lost: this link cannot be followed (No such file or directory)",
        "'DOG' here, ",
        "1 of 4 classes in",
        "are not in the training set: cow. ",
        r"unprintable characters in their names: a\nb. Rename them",
        "1 file is in two splits: ",
        "test: no images of ",
        "2 of 15 images cannot be read; replace or remove them:\n    ",
        "train/cat/2.png: no such file",
        "train/dog/9.jpg: not an image",
    ):
        assert part in text, text
    assert text.startswith(f"folder: {text.count(NEXT_FAULT)} faults in {tmp_path}:\n  - ")
