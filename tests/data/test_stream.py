"""Images come in order and block by block, and no further ahead than there are threads."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from samdeploy.arrays import UInt8Array
from samdeploy.bundle.spec import Preprocessing
from samdeploy.data import Samples, load_images, open_dataset
from samdeploy.data.stream import stream_images
from samdeploy.errors import DatasetError, ImageError

SIZE = Preprocessing(4, 6)


def samples(count: int, load: object) -> Samples:
    return Samples(np.zeros(count, np.int64), tuple(f"image {index}" for index in range(count)), load)  # type: ignore[arg-type]


def test_blocks_are_the_set_in_order() -> None:
    val = open_dataset("digits").val
    blocks = list(stream_images(val, SIZE, description="val", block=50))
    assert [block.shape for block in blocks] == [(50, 4, 6, 3), (50, 4, 6, 3), (44, 4, 6, 3)]
    assert {block.dtype for block in blocks} == {np.dtype(np.uint8)}
    assert np.array_equal(np.concatenate(blocks), load_images(val, SIZE, description="val")[0])


def test_nothing() -> None:
    assert list(stream_images(samples(0, None), SIZE, description="none")) == []


class Counting:
    """Remembers how many images were asked for."""

    def __init__(self) -> None:
        self.asked = 0
        self.lock = threading.Lock()

    def __call__(self, index: int) -> UInt8Array:
        with self.lock:
            self.asked += 1
        return np.full((4, 6, 3), index % 256, np.uint8)


def image_threads() -> set[threading.Thread]:
    """Those of other tests in this process, too."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("images")}


@pytest.mark.parametrize("threads", [1, 3])
def test_reading_stays_ahead_but_not_far(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(threads)))
    load, before = Counting(), image_threads()
    stream = stream_images(samples(1000, load), SIZE, description="test", block=10)
    taken = 0
    for block in stream:
        taken += len(block)
        time.sleep(0.002)  # the threads have time to run away
        assert load.asked <= taken + 10 * (threads + 1)
        if taken == 200:
            break
    # While one block is worked on, the next are read.
    assert load.asked >= taken + 10
    stream.close()
    asked = load.asked
    time.sleep(0.01)
    assert load.asked == asked
    assert image_threads() <= before


def test_from_the_first_broken_image_on_nothing_is_yielded_but_all_are_counted() -> None:
    load = Counting()

    def broken(index: int) -> UInt8Array:
        if index in (37, 99):
            raise ImageError(f"reason {index}")
        return load(index)

    seen = 0
    with pytest.raises(DatasetError) as caught:
        for block in stream_images(samples(100, broken), SIZE, description="test images", block=10):
            seen += len(block)
    assert seen <= 30
    assert load.asked == 98
    assert str(caught.value).startswith(
        "test images: 2 of 100 images cannot be read; replace or remove them:\n    image 37: reason 37\n    "
    )


def test_another_error_is_passed_on() -> None:
    def wrong(index: int) -> UInt8Array:
        raise ZeroDivisionError(index)

    before = image_threads()
    with pytest.raises(ZeroDivisionError):
        list(stream_images(samples(100, wrong), SIZE, description="test"))
    assert image_threads() <= before


def test_unreadable_images_are_black_where_the_others_are_wanted() -> None:
    def load(index: int) -> UInt8Array:
        if index in (1, 7):
            raise ImageError(f"image {index}: damaged")
        return np.full((4, 6, 3), 9, np.uint8)

    broken: dict[int, str] = {}
    blocks = list(stream_images(samples(8, load), SIZE, description="test", block=3, unreadable=broken))
    assert [block.max(axis=(1, 2, 3)).tolist() for block in blocks] == [[9, 0, 9], [9, 9, 9], [9, 0]]
    assert broken == {1: "image 1: damaged", 7: "image 7: damaged"}
