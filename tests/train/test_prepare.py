"""What a training is given: prepared once, refused where nothing can be learned, and used as the protocol says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy.data import Dataset, open_dataset
from samdeploy.data.dataset import array_samples
from samdeploy.errors import DatasetError, InputError
from samdeploy.train.prepare import PreparedData, check_counts, open_recipe_data, prepare_data
from samdeploy.train.recipe.recipe import Recipe

MakeRecipe = Callable[..., Recipe]
REPORT = "data.leaks=report"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMDEPLOY_CACHE", str(tmp_path / "cache"))


def prepared(recipe: Recipe) -> PreparedData:
    return prepare_data(recipe, open_recipe_data(recipe))


def test_an_honest_recipe_keeps_its_splits_apart(recipe: MakeRecipe) -> None:
    data = prepared(recipe())
    assert data.counts() == {"train": 22, "val": 8, "test": 10}
    assert data.protocol == "honest"
    assert data.test_measures == "accuracy on test images, looked at once"
    assert data.training[0] is data.splits["train"][0]


def test_the_second_run_reads_the_cache_and_sees_the_same(recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepared(recipe())
    monkeypatch.setattr("samdeploy.data.cache.stream_images", None)  # nothing may be decoded as a whole
    second = prepared(recipe())
    assert second.fingerprints == first.fingerprints
    assert second.leaks == first.leaks
    assert all(np.array_equal(second.splits[name][0], first.splits[name][0]) for name in first.splits)


def test_no_cache(recipe: MakeRecipe, tmp_path: Path) -> None:
    prepared(recipe("data.cache=false"))
    assert not (tmp_path / "cache").exists()


def test_larger_training_images(recipe: MakeRecipe) -> None:
    data = prepared(recipe("augment.crop_scale=0.5", "augment.oversize=1.5"))
    assert data.training[0].shape == (22, 48, 48, 3)
    assert data.splits["train"][0].shape == (22, 32, 32, 3)
    assert data.fingerprints == prepared(recipe()).fingerprints


def test_chosen_on_test(recipe: MakeRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    data = prepared(recipe("data.options.protocol=chosen-on-test", REPORT))
    assert data.counts() == {"train": 30, "val": 10, "test": 10}  # val is trained on, as nothing is kept aside
    assert data.splits["val"][0] is data.splits["test"][0]
    assert data.fingerprints["test"] == prepared(recipe()).fingerprints["test"]
    assert "accuracy on test images that also stopped the training" in data.test_measures
    said = capsys.readouterr().err
    assert "protocol 'chosen-on-test': the figure called test is the accuracy on test images that also stopped" in said
    assert "10 of 10 test images (100.00 %) are also in val, with the same pixels" in said


def test_tested_on_train(recipe: MakeRecipe) -> None:
    data = prepared(recipe("data.options.protocol=tested-on-train", REPORT))
    assert data.counts() == {"train": 30, "val": 30, "test": 30}
    assert data.test_measures == "accuracy on training images: it says nothing about new images"
    assert len(set(data.fingerprints.values())) == 1


def test_a_published_protocol_is_refused_as_long_as_leaks_are(recipe: MakeRecipe) -> None:
    with pytest.raises(DatasetError, match=r"with the same pixels.*--set data\.leaks=report"):
        prepared(recipe("data.options.protocol=tested-on-train"))


def test_unknown_protocol() -> None:
    with pytest.raises(InputError) as caught:
        open_dataset("digits", options={"protocol": "tested-on-trian"})
    assert str(caught.value) == (
        "unknown option protocol of data set 'digits' 'tested-on-trian'; did you mean 'tested-on-train'? "
        "Valid: honest, chosen-on-test, tested-on-train"
    )


def test_the_joined_images_are_those_of_train_then_those_of_val() -> None:
    honest, published = open_dataset("digits"), open_dataset("digits", options={"protocol": "chosen-on-test"})
    assert len(published.train) == len(honest.train) + len(honest.val)
    assert list(published.train.names) == [*honest.train.names, *honest.val.names]
    last = len(published.train) - 1
    assert np.array_equal(published.train.load(last), honest.val.load(len(honest.val) - 1))
    assert published.train.labels[last] == honest.val.labels[-1]


def samples(*labels: int) -> object:
    return array_samples(np.zeros((len(labels), 4, 4), np.uint8), np.array(labels, np.int64), "x")


def test_a_class_without_a_training_image_is_refused() -> None:
    dataset = Dataset("mine", ("cat", "dog", "owl"), samples(0, 0), samples(1), samples(2))  # type: ignore[arg-type]
    with pytest.raises(DatasetError) as caught:
        check_counts(dataset)
    assert str(caught.value) == (
        "data set 'mine': 0 training images found for 2 of 3 classes: 'dog', 'owl'; at least 1 expected for each. "
        "Add images, or remove the class"
    )


def test_an_empty_split_is_refused() -> None:
    dataset = Dataset("mine", ("cat", "dog"), samples(0, 1), samples(0), samples())  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="data set 'mine': 0 images found in the test split; at least 1 expected"):
        check_counts(dataset)


def test_a_data_set_that_changed_under_the_cache(
    examples: Path, recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "mine"
    shutil.copytree(examples, root)
    before = prepared(recipe(f"data.root={root}"))
    shutil.copy(root / "test/dark/0.png", root / "test/dark/1.png")
    after = prepared(recipe(f"data.root={root}"))
    assert "test: 1 of 10 images changed since they were cached; they are prepared again" in capsys.readouterr().err
    assert before.fingerprints["train"] == after.fingerprints["train"]
    assert before.fingerprints["test"] != after.fingerprints["test"]


def test_resaved_copies_are_left_out_of_what_was_cut(
    examples: Path, recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "resaved"
    shutil.copytree(examples / "train", root)
    for file in list(root.rglob("*.png")):
        Image.open(file).save(file.with_suffix(".bmp"))
    data = prepared(recipe(f"data.root={root}", "data.val_fraction=0.2"))
    found = [{digest.tobytes() for digest in data.hashes[name].digests} for name in ("train", "val", "test")]
    assert sum(map(len, found)) == len(set.union(*found)) == 22
    # What `eval` will open is what was kept for the test.
    opened = open_dataset("folder", root, val_fraction=0.2)
    assert list(opened.test.names) == list(data.hashes["test"].names)
    assert len(data.hashes["train"]) < len(opened.train)
    said = capsys.readouterr().err
    assert (
        f"{len(opened.train) - len(data.hashes['train'])} of {len(opened.train)} train images left out: copies of "
        in said
    )


def test_copies_in_splits_of_the_users_own_are_refused(examples: Path, recipe: MakeRecipe, tmp_path: Path) -> None:
    root = tmp_path / "shared"
    shutil.copytree(examples, root)
    shutil.copy(root / "train/bright/0.png", root / "test/bright/again.png")
    with pytest.raises(DatasetError, match=r"1 of 11 test images \(9\.1 %\) are also in train, with the same pixels"):
        prepared(recipe(f"data.root={root}"))


def test_two_labels_are_said_before_anything_is_refused(
    examples: Path, recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "contradicting"
    shutil.copytree(examples, root)
    for part, name in (("train", "within.png"), ("test", "across.png")):
        shutil.copy(root / "train/bright/0.png", root / part / "dark" / name)
    with pytest.raises(DatasetError, match="with the same pixels"):
        prepared(recipe(f"data.root={root}"))
    said = capsys.readouterr().err
    one, other = root / "train/bright/0.png", root / "train/dark/within.png"
    assert f"1 image has two labels: {one} ('bright') = {other} ('dark'). Keep each image in one class only" in said
