"""Small and uneven data are warned of once, with the number and a cure."""

from __future__ import annotations

import numpy as np
import pytest

from samdeploy.train.loop.epoch import loss_text
from samdeploy.train.loop.measure import Measured
from samdeploy.train.watch.cautions import data_cautions, training_cautions
from samdeploy.train.watch.history import EpochRow

CLASSES = ("cat", "dog")


def row(train_top1: float, val_top1: float) -> EpochRow:
    return EpochRow(1, 1e-3, 0.5, train_top1, 0.6, val_top1, val_top1, 0.5, 100, 1)


def of_data(
    train: tuple[int, int] = (500, 500), val: tuple[int, int] = (90, 90), test: tuple[int, int] = (90, 90)
) -> str:
    counts = {"train": np.array(train), "val": np.array(val), "test": np.array(test)}
    return "\n".join(data_cautions(counts, CLASSES))


def test_sound_data() -> None:
    assert of_data() == ""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"val": (13, 13)}, "only 26 validation images: each is 3.8 points of top-1"),
        ({"train": (280, 20)}, "class 'cat' has 14 times the training images of 'dog' (280 and 20)"),
        ({"train": (2, 12)}, "fewer than 10 training images of 'cat' (2); add images, or join classes"),
        ({"val": (0, 200)}, "no validation image of 'cat'"),
        ({"test": (3, 0)}, "no test image of 'dog'"),
    ],
)
def test_data(data: dict[str, tuple[int, int]], words: str) -> None:
    assert of_data(**data).startswith(words)


@pytest.mark.parametrize(
    ("train", "val", "predicted", "right", "words"),
    [
        (99.0, 95.0, (10, 10), (9, 9), ""),
        (100.0, 50.0, (10, 10), (5, 5), "train top-1 is 100.0 %, validation 50.0 %: the network knows its training"),
        (60.0, 55.0, (20, 0), (10, 0), "every test image is taken for 'cat' (100 %): nothing was learnt"),
        (60.0, 55.0, (19, 1), (10, 0), "no test image of 'dog' (0 of 10) is recognised; train longer"),
    ],
)
def test_training(train: float, val: float, predicted: tuple[int, int], right: tuple[int, int], words: str) -> None:
    confusion = np.array([[right[0], predicted[1] - right[1]], [predicted[0] - right[0], right[1]]])
    test = Measured(0.5, sum(right), 20, confusion=confusion)
    found = training_cautions(row(train, val), test, np.array([10, 10]), CLASSES, epochs=3)
    assert len(found) == bool(words) and "".join(found).startswith(words)


def test_more_images_are_advised_for_rare_classes_alone() -> None:
    test = Measured(0.5, 10, 32, confusion=np.array([[10, 0, 0], [0, 0, 20], [1, 1, 0]]))
    arguments = (row(60, 55), test, np.array([10, 20, 2]), ("cat", "dog", "cow"))
    (found,) = training_cautions(*arguments, epochs=3)
    assert found.endswith("'dog' (0 of 20), 'cow' (0 of 2) is recognised; train longer, or add images of 'cow'")
    assert training_cautions(*arguments, epochs=2) == ()


def test_a_loss_keeps_its_column() -> None:
    assert [loss_text(loss) for loss in (0.5, 4.6e16, float("nan"))] == ["0.5000", "4.60e+16", "nan"]
