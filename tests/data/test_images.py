from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from samdeploy.arrays import UInt8Array
from samdeploy.bundle.spec import Preprocessing
from samdeploy.data import Samples, fingerprint, load_images, open_dataset
from samdeploy.data.dataset import array_samples
from samdeploy.data.images import Fingerprint
from samdeploy.errors import DatasetError, ImageError
from samdeploy.images.decode import resize


def test_images_come_in_order_and_through_the_one_resize() -> None:
    samples = open_dataset("digits").val
    preprocessing = Preprocessing(12, 20)
    images, labels = load_images(samples, preprocessing, description="val")
    assert images.shape == (144, 12, 20, 3)
    assert images.dtype == np.uint8
    for index in range(len(samples)):
        assert np.array_equal(images[index], resize(samples.load(index), preprocessing))
    assert np.array_equal(labels, samples.labels)
    labels[:] = -1
    assert samples.labels.min() == 0


def test_no_images() -> None:
    empty = array_samples(np.zeros((0, 4, 4), np.uint8), np.zeros(0, np.int64), "none")
    images, labels = load_images(empty, Preprocessing(5, 6), description="none")
    assert images.shape == (0, 5, 6, 3)
    assert labels.shape == (0,)


def broken_every_third(index: int) -> UInt8Array:
    if index % 3 == 0:
        raise ImageError(f"reason {index}")
    return np.zeros((4, 4, 3), dtype=np.uint8)


def test_all_broken_images_are_counted_and_the_first_five_named() -> None:
    samples = Samples(np.zeros(100, np.int64), tuple(f"image {index}" for index in range(100)), broken_every_third)
    with pytest.raises(DatasetError) as error:
        load_images(samples, Preprocessing(4, 4), description="train")
    assert str(error.value) == (
        "train: 34 of 100 images cannot be read; replace or remove them:\n    image 0: reason 0\n"
        "    image 3: reason 3\n    image 6: reason 6\n    image 9: reason 9\n    image 12: reason 12\n"
        "    and 29 more"
    )


def test_more_than_the_memory() -> None:
    # Labels without storage of their own: 10^12 images of 1000x1000 are 3 EB.
    samples = Samples(np.broadcast_to(np.int64(0), 10**12), (), broken_every_third)
    with pytest.raises(DatasetError) as error:
        load_images(samples, Preprocessing(1000, 1000), description="train")
    assert str(error.value) == (
        "train: 1,000,000,000,000 images of 1000x1000 take 2,793,967,723.8 GiB, more memory than this machine gives; "
        "use a smaller image size or fewer images"
    )


def test_fingerprint_is_over_shape_bytes_and_labels() -> None:
    images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    labels = np.array([1, 0], dtype=np.int64)
    # printf '2,2,2,3\0' + bytes 0..23 + two little-endian int64, through sha256sum
    assert fingerprint(images, labels) == "09a3faf4fed8ba8f541f72dfb6c4dff9e19c34e397166e4ba0a5c9e5e18d78bc"
    assert fingerprint(images, labels[::-1]) != fingerprint(images, labels)
    assert fingerprint(images.reshape(2, 1, 4, 3), labels) != fingerprint(images, labels)
    assert fingerprint(np.asfortranarray(images), labels) == fingerprint(images, labels)
    changed = images.copy()
    changed[1, 1, 1, 2] += 1
    assert fingerprint(changed, labels) != fingerprint(images, labels)


def test_fingerprint_of_blocks_is_that_of_the_whole() -> None:
    images, labels = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3), np.array([1, 0], dtype=np.int64)
    found = Fingerprint((2, 2, 2, 3))
    found.update(images[:1])
    found.update(images[1:])
    assert found.hexdigest(labels) == found.hexdigest(labels) == fingerprint(images, labels)


def test_samples_survive_pickling(tmp_path: Path) -> None:
    # Worker processes that are started afresh get their samples this way.
    samples = open_dataset("digits", tmp_path).test
    copy = pickle.loads(pickle.dumps(samples))
    assert np.array_equal(copy.load(5), samples.load(5))
    assert copy.names[5] == samples.names[5]
