"""Which folders are splits and which are classes: each one is used, refused or named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from samdeploy.data import Dataset, open_dataset
from samdeploy.data.sets.layout import split_of
from samdeploy.errors import DatasetError

Tree = Callable[..., None]
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, image_tree: Tree) -> Make:
    """`make("train/cat", "train/dog")`: a root with ten different images in each of these folders."""

    def write(*folders: str) -> Path:
        names = [f"{folder}/{number}.png" for folder in folders for number in range(10)]
        image_tree(tmp_path, {name: grey for grey, name in enumerate(names)})
        return tmp_path

    return write


def splits(*names: str) -> list[str]:
    return [f"{name}/{label}" for name in names for label in ("cat", "dog")]


def used(dataset: Dataset, root: Path) -> set[str]:
    names = [name for part in (dataset.train, dataset.val, dataset.test) for name in part.names]
    return {str(Path(name).relative_to(root).parent) for name in names}


def refusal(root: Path) -> str:
    with pytest.raises(DatasetError) as error:
        open_dataset("folder", root)
    return str(error.value)


@pytest.mark.parametrize(
    ("split", "names"),
    [
        (
            "train",
            "train Training TRAIN training_set train_data trainset Train-Images train2017 01_train dataTrain",
        ),
        ("val", "val VALID validation Validation_Set dev eval val_images Evaluation valset"),
        ("test", "Test testing test_set TESTING_DATA testset tst"),
        (None, "cat trains protest evaluate_me contest valley invalid seg_train train_labels device 2017 _ data"),
    ],
)
def test_names_of_splits(split: str | None, names: str) -> None:
    assert {name for name in names.split() if split_of(name) != split} == set()


@pytest.mark.parametrize(
    "names",
    [
        "Training Testing",
        "training_set test_set",
        "TRAIN VAL",
        "train Test",
        "Train valid test",
        "train_data dev",
    ],
)
def test_split_folders_of_any_usual_name(make: Make, names: str) -> None:
    root = make(*splits(*names.split()))
    dataset = open_dataset("folder", root)
    assert dataset.classes == ("cat", "dog")
    assert used(dataset, root) == set(splits(*names.split()))
    for name in names.split():
        assert f"{name}/ as {split_of(name)}" in dataset.notes[0]
        part = dataset.split(split_of(name) or "")
        assert {Path(found).relative_to(root).parts[0] for found in part.names} == {name}


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (splits("train", "val", "valid"), "val/ and valid/ in "),
        (splits("train", "dev", "eval_set"), "dev/ and eval_set/ in "),
        (splits("train", "Train", "test"), "Train/ and train/ in "),
        (["bus", "car", "train/freight", "train/metro"], "bus/, car/ beside train/ in "),
        (splits("train", "holdout"), "holdout/ beside train/ in "),
        (splits("train", "val", "holdout"), "holdout/ beside train/, val/ in "),
        (["train", "test"], "no class folders in "),
        (["train", "test", "sample"], "no class folders in "),
        (["train", "train_masks"], "no class folders in "),
        (["Training/1", "Testing"], "no class folders in "),
        (splits("seg_train", "seg_test", "seg_pred"), "seg_test/, seg_train/ in "),
        (["cat/train", "cat/test", "dog/train", "dog/test"], "hold split folders, for example cat/: test, train;"),
        (["train/train/a", "train/train/b"], "all class folders in "),
        (splits("val", "test"), "has val/ and test/ but no train/"),
        (["train/cat", "train/dog", "test"], "no class folders in "),
        (["train/cat", "train/dog", "test/Cat", "test/dog"], "'Cat' here, 'cat' there"),
    ],
)
def test_what_could_mean_two_things_is_refused(make: Make, folders: list[str], said: str) -> None:
    assert said in refusal(make(*folders))


@pytest.mark.parametrize(
    ("folders", "classes", "note"),
    [
        (["bus", "car", "train"], "bus car train", "train/: read as a class beside bus/, car/"),
        (["valid", "invalid"], "invalid valid", "valid/: read as a class beside invalid/"),
        ([*splits("train", "val", "test"), "unlabelled"], "cat dog", "unlabelled/ in "),
        ([*splits("train", "test"), "extra/1"], "cat dog", "extra/ in "),
        (
            splits("fold1", "fold2"),
            "fold1 fold2",
            "warning: fold1/, fold2/ are taken as the classes, and all hold folders cat, dog",
        ),
        (["positive_test", "negative_test"], "negative_test positive_test", ""),
    ],
)
def test_what_is_used_otherwise_is_named(make: Make, folders: list[str], classes: str, note: str) -> None:
    dataset = open_dataset("folder", make(*folders), val_fraction=0.2)
    assert dataset.classes == tuple(classes.split())
    assert note in "\n".join(dataset.notes)


def test_everything_beside_the_splits_is_named(make: Make) -> None:
    root = make(*splits("train", "val"), "@eaDir/x")
    (root / "annotations").mkdir()
    (root / "annotations/cat.xml").touch()
    (root / "labels.csv").touch()
    (root / "sample.jpg").touch()
    (root / "test").touch()
    dataset = open_dataset("folder", root)
    assert used(dataset, root) == set(splits("train", "val"))
    assert dataset.notes[:5] == (
        f"annotations/ in {root} not used: no images there",
        f"{root}: 2 files skipped: 1 .csv, 1 without suffix",
        f"{root}: 1 hidden or system entry skipped: 1 @eaDir",
        f"1 image outside of any split not used: {root / 'sample.jpg'}",
        f"{root / 'test'} is a file, not a folder, and is not used",
    )


def test_a_class_folder_that_links_to_another_place_is_read(make: Make, tmp_path: Path) -> None:
    root = make("root/train/cat", "root/val/cat", "root/val/dog", "store/deep") / "root"
    (root / "train/dog").symlink_to(tmp_path / "store")
    (tmp_path / "store/deep/up").symlink_to(tmp_path / "store")
    dataset = open_dataset("folder", root)
    assert len([name for name in dataset.train.names if "dog" in name]) == 8
    assert any(note.startswith("train: 1 link to a folder above or read already ") for note in dataset.notes)
