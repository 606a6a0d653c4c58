from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy.bundle.spec import Preprocessing
from samdeploy.data import load_images, open_dataset
from samdeploy.errors import DatasetError

FOLDER = "fgvc-aircraft-2013b"
# JPEG keeps a flat grey to within one level; the banner's magenta is 100 levels and more away.
JPEG_LEVELS = 1


def numbers(names: tuple[str, ...]) -> list[int]:
    return [int(Path(name).stem) for name in names]


def test_official_splits(aircraft_root: Path) -> None:
    dataset = open_dataset("aircraft", aircraft_root)
    assert dataset.classes == ("707-320", "737-200", "737-300", "Hawk T1")
    assert numbers(dataset.train.names) == list(range(0, 16))
    assert numbers(dataset.val.names) == list(range(16, 28))
    assert numbers(dataset.test.names) == list(range(28, 36))
    assert dataset.train.labels.tolist() == [0, 1, 2, 3] * 4
    assert dataset.test.labels.tolist() == [0, 1, 2, 3] * 2


@pytest.mark.parametrize(
    ("level", "classes", "labels"),
    [
        ("variant", ("707-320", "737-200", "737-300", "Hawk T1"), [0, 1, 2, 3]),
        ("family", ("Boeing 707", "Boeing 737", "Hawk T1"), [0, 1, 1, 2]),
        ("manufacturer", ("Boeing", "British Aerospace"), [0, 0, 0, 1]),
    ],
)
def test_levels(aircraft_root: Path, level: str, classes: tuple[str, ...], labels: list[int]) -> None:
    dataset = open_dataset("aircraft", aircraft_root, options={"level": level})
    assert dataset.classes == classes
    assert dataset.val.labels.tolist() == labels * 3


def test_the_banner_is_cut_off(aircraft_root: Path) -> None:
    samples = open_dataset("aircraft", aircraft_root).val
    for index, number in enumerate(numbers(samples.names)):
        image = samples.load(index)
        assert image.shape == (40, 50, 3)
        # The banner starts at a border of JPEG's 8x8 blocks (40 = 5 * 8), so nothing of it bleeds into row 39.
        assert np.abs(image.astype(int) - number).max() <= JPEG_LEVELS


def test_merge_val_holds_out_a_stratified_part(aircraft_root: Path) -> None:
    dataset = open_dataset("aircraft", aircraft_root, options={"merge_val": True}, val_fraction=0.25, seed=1)
    assert sorted(np.bincount(dataset.train.labels).tolist()) == [5, 5, 5, 6]
    assert len(dataset.val) == 7
    assert sorted(numbers(dataset.train.names) + numbers(dataset.val.names)) == list(range(28))
    assert numbers(dataset.test.names) == list(range(28, 36))
    again = open_dataset("aircraft", aircraft_root, options={"merge_val": True}, val_fraction=0.25, seed=1)
    assert again.val.names == dataset.val.names
    other = open_dataset("aircraft", aircraft_root, options={"merge_val": True}, val_fraction=0.25, seed=2)
    assert other.val.names != dataset.val.names


def test_the_own_folder_may_be_given_as_root(aircraft_root: Path) -> None:
    assert len(open_dataset("aircraft", aircraft_root / FOLDER).train) == 16


def test_missing_files(aircraft_root: Path) -> None:
    data = aircraft_root / FOLDER / "data"
    (data / "families.txt").unlink()
    (data / "images_family_val.txt").unlink()
    with pytest.raises(DatasetError) as error:
        open_dataset("aircraft", aircraft_root, options={"level": "family"})
    assert str(error.value) == (
        f"aircraft: missing: {data / 'families.txt'}, {data / 'images_family_val.txt'}. "
        "Get https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz (2.75 GB, md5 "
        f"d4acdd33327262359767eeaa97a4f732) and unpack it: `mkdir -p {aircraft_root} "
        f"&& tar -xzf fgvc-aircraft-2013b.tar.gz -C {aircraft_root}`"
    )


def test_unknown_class_in_a_list(aircraft_root: Path) -> None:
    file = aircraft_root / FOLDER / "data" / "images_variant_test.txt"
    file.write_text(file.read_text() + "0000035 Concorde\n")
    with pytest.raises(DatasetError) as error:
        open_dataset("aircraft", aircraft_root)
    assert str(error.value) == (
        f"{file}: variant 'Concorde' found, which is not in variants.txt; unpack the archive again"
    )


def test_malformed_line(aircraft_root: Path) -> None:
    file = aircraft_root / FOLDER / "data" / "images_variant_val.txt"
    file.write_text("0000016\n")
    with pytest.raises(DatasetError, match=r"images_variant_val.txt: a line is not 'ID NAME' \("):
        open_dataset("aircraft", aircraft_root)


def test_empty_list(aircraft_root: Path) -> None:
    file = aircraft_root / FOLDER / "data" / "images_variant_val.txt"
    file.write_text("")
    with pytest.raises(DatasetError) as error:
        open_dataset("aircraft", aircraft_root)
    assert str(error.value) == f"{file}: no images listed; unpack the archive again"


def test_a_image_in_two_splits(aircraft_root: Path) -> None:
    data = aircraft_root / FOLDER / "data"
    (data / "images_variant_test.txt").write_text((data / "images_variant_train.txt").read_text())
    with pytest.raises(DatasetError) as error:
        open_dataset("aircraft", aircraft_root)
    assert str(error.value) == (
        "aircraft: image 0000000 is listed in both train and test; the official splits share none, "
        "unpack the archive again"
    )


def test_missing_and_small_images_are_reported_together(aircraft_root: Path) -> None:
    images = aircraft_root / FOLDER / "data" / "images"
    (images / "0000001.jpg").unlink()
    Image.new("RGB", (50, 20)).save(images / "0000003.jpg")
    samples = open_dataset("aircraft", aircraft_root).train
    with pytest.raises(DatasetError) as error:
        load_images(samples, Preprocessing(8, 8), description="train")
    assert str(error.value) == (
        f"train: 2 of 16 images cannot be read; replace or remove them:\n    {images / '0000001.jpg'}: no such file\n"
        f"    {images / '0000003.jpg'}: 20 rows found, more than the 20 of the banner expected"
    )


def test_the_published_protocol_tests_on_its_training_images_and_keeps_the_banner(aircraft_root: Path) -> None:
    options = {"protocol": "tested-on-train", "merge_val": True, "banner": "keep"}
    dataset = open_dataset("aircraft", aircraft_root, options=options, val_fraction=0.25)
    assert len(dataset.train) == 28  # four of train and three of val, of four variants
    assert dataset.test is dataset.val is dataset.train
    official = open_dataset("aircraft", aircraft_root).test
    assert not set(official.names) & set(dataset.test.names)
    image = dataset.train.load(0)
    assert image.shape == (60, 50, 3)
    assert np.abs(image[50].astype(int) - (255, 0, 255)).max() < 20
    assert "the figure called test is the accuracy on training images" in dataset.notes[-1]


def test_images_with_the_banner_are_others_to_the_cache(aircraft_root: Path) -> None:
    cut, kept = (open_dataset("aircraft", aircraft_root, options={"banner": name}).test for name in ("cut", "keep"))
    assert cut.stamps is not None and kept.stamps is not None
    assert np.array_equal(cut.stamps(), cut.stamps())
    assert (cut.stamps() != kept.stamps()).all()
