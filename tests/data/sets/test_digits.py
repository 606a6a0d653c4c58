from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from samdeploy.data import Samples, open_dataset

ROOT = Path("not used")
# The 17 grey levels of the set, each v * 255 / 16 rounded half up.
LEVELS = [0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255]


def originals(samples: Samples) -> list[int]:
    """Places in scikit-learn's arrays: "digits[17]" is 17."""
    return [int(name.removeprefix("digits[").removesuffix("]")) for name in samples.names]


def test_counts_and_classes() -> None:
    dataset = open_dataset("digits", ROOT)
    assert dataset.name == "digits"
    assert dataset.classes == tuple("0123456789")
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (1294, 144, 359)
    assert dataset.train.labels.dtype == np.int64


def test_pixels_are_the_scaled_originals() -> None:
    raw = load_digits()
    dataset = open_dataset("digits", ROOT)
    table = np.array(LEVELS, dtype=np.uint8)
    for samples in (dataset.train, dataset.val, dataset.test):
        for index, original in enumerate(originals(samples)):
            image = samples.load(index)
            assert image.dtype == np.uint8
            assert image.shape == (8, 8, 3)
            expected = table[raw.images[original].astype(int)]
            assert all(np.array_equal(image[:, :, channel], expected) for channel in range(3))
            assert samples.labels[index] == raw.target[original]


def test_splits_are_disjoint_and_whole() -> None:
    dataset = open_dataset("digits", ROOT)
    places = [place for name in ("train", "val", "test") for place in originals(dataset.split(name))]
    assert sorted(places) == list(range(1797))


def test_every_class_keeps_its_share() -> None:
    totals = np.bincount(load_digits().target)
    dataset = open_dataset("digits", ROOT)
    for samples in (dataset.train, dataset.val, dataset.test):
        counts = np.bincount(samples.labels, minlength=10)
        assert np.abs(counts - totals * len(samples) / 1797).max() < 2


def test_seed_moves_val_and_never_test() -> None:
    first, again, other = (open_dataset("digits", ROOT, seed=seed) for seed in (0, 0, 1))
    assert originals(first.val) == originals(again.val)
    assert originals(first.train) == originals(again.train)
    assert originals(first.val) != originals(other.val)
    assert originals(first.test) == originals(other.test)
    assert originals(first.test) == originals(open_dataset("digits", ROOT, val_fraction=0.3).test)


def test_the_test_split_is_the_one_that_published_figures_are_on() -> None:
    # Fails if another release of scikit-learn draws differently: figures before and after would not compare.
    test = open_dataset("digits", ROOT).test
    assert originals(test)[:8] == [0, 4, 9, 10, 14, 18, 19, 25]
    assert sum(originals(test)) == 321300
