from __future__ import annotations

import numpy as np
import pytest

from samdeploy.data import Samples
from samdeploy.data.dataset import array_samples
from samdeploy.data.split import hold_out
from samdeploy.errors import DatasetError

CLASSES = ("ant", "bee", "cat")


def samples(*counts: int) -> Samples:
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), dtype=np.uint8)
    return array_samples(images, labels, "x")


def cut(source: Samples, fraction: float, seed: int = 0, part: str = "val") -> tuple[Samples, Samples]:
    return hold_out(source, fraction, seed, classes=CLASSES, part=part, dataset="animals")


def test_every_class_gives_its_share_and_order_is_kept() -> None:
    kept, held = cut(samples(20, 40, 60), 0.25)
    assert np.bincount(kept.labels).tolist() == [15, 30, 45]
    assert np.bincount(held.labels).tolist() == [5, 10, 15]
    places = [[int(name[2:-1]) for name in part.names] for part in (kept, held)]
    assert places[0] == sorted(places[0])
    assert places[1] == sorted(places[1])
    assert sorted(places[0] + places[1]) == list(range(120))
    # Images and labels travel together: image i holds the value i.
    for part, originals in zip((kept, held), places, strict=True):
        assert [int(part.load(index)[0, 0, 0]) for index in range(len(part))] == originals


def test_shares_that_do_not_divide_are_rounded() -> None:
    _, held = cut(samples(7, 7, 7), 0.33)
    assert len(held) == 7
    assert set(np.bincount(held.labels).tolist()) == {2, 3}


def test_seed() -> None:
    assert cut(samples(9, 9, 9), 0.4, seed=1)[1].names == cut(samples(9, 9, 9), 0.4, seed=1)[1].names
    assert cut(samples(9, 9, 9), 0.4, seed=1)[1].names != cut(samples(9, 9, 9), 0.4, seed=2)[1].names


def test_a_class_with_a_single_image() -> None:
    with pytest.raises(DatasetError) as error:
        cut(samples(5, 1, 0), 0.5)
    assert str(error.value) == (
        "animals: no val split can be cut from the training images: at least 2 different images per class expected, "
        "fewer found in 'bee' (1), 'cat' (0). Add images or remove the class"
    )


@pytest.mark.parametrize(("fraction", "count"), [(0.1, 1), (0.9, 11)])
def test_a_side_smaller_than_the_number_of_classes(fraction: float, count: int) -> None:
    with pytest.raises(DatasetError) as error:
        cut(samples(4, 4, 4), fraction)
    assert str(error.value) == (
        f"animals: {count} of 12 images would be val ({fraction:g}), but val and train need 3 each, one per class; "
        "add images, or --set data.val_fraction=0.25"
    )
    with pytest.raises(DatasetError, match=r"; add images, or bring a test split of your own$"):
        cut(samples(4, 4, 4), fraction, part="test")


def test_a_class_that_would_lose_all_its_training_images() -> None:
    with pytest.raises(DatasetError) as error:
        cut(samples(2, 100, 100), 0.95)
    assert str(error.value) == (
        "animals: a val split of 0.95 leaves no training image of class 'ant' (2 found in all); "
        "add images, or lower data.val_fraction"
    )


def test_copies_go_to_one_side_and_others_are_cut_as_before() -> None:
    source = samples(20, 20, 20)
    # Five copies of each of the last ten images of the second and third class.
    copies = {source.names[index]: source.names[index - index % 5] for index in (*range(30, 40), *range(50, 60))}
    copies = {name: first for name, first in copies.items() if name != first}
    kept, held = hold_out(source, 0.25, 0, classes=CLASSES, part="val", dataset="animals", copies=copies)
    sides = [{copies.get(name, name) for name in part.names} for part in (kept, held)]
    assert not sides[0] & sides[1]
    assert len(sides[1]) == round(0.25 * 44) and len(kept) + len(held) == 60
    assert set(held.labels.tolist()) == {0, 1, 2}
    assert cut(source, 0.25)[1].names == hold_out(
        source, 0.25, 0, classes=CLASSES, part="val", dataset="animals", copies={"x[0]": "x[0]"}
    )[1].names  # fmt: skip


def test_a_class_of_one_image_and_its_copies() -> None:
    source = samples(6, 6, 3)
    copies = dict.fromkeys(source.names[13:], source.names[12])
    with pytest.raises(
        DatasetError, match=r"at least 2 different images per class expected, fewer found in 'cat' \(1\) \(cop"
    ):
        hold_out(source, 0.3, 0, classes=CLASSES, part="val", dataset="animals", copies=copies)
