"""Read whole sets of images into memory, and give prepared images a fingerprint."""

from __future__ import annotations

import hashlib

import numpy as np

from samdeploy.arrays import Int64Array, UInt8Array
from samdeploy.bundle.spec import Preprocessing
from samdeploy.data.dataset import Samples
from samdeploy.data.stream import stream_images
from samdeploy.errors import DatasetError


def load_images(samples: Samples, preprocessing: Preprocessing, *, description: str) -> tuple[UInt8Array, Int64Array]:
    """Decode and resize all samples, in threads, with a progress bar.

    Args:
        samples: what to read.
        preprocessing: the size that the images are brought to.
        description: for the progress bar and for errors, for example "train".

    Returns:
        images uint8 [N, H, W, 3] RGB, in the order of `samples`, and labels int64 [N]; both are the caller's.

    Raises:
        DatasetError: images are missing or damaged (all are looked at before this is raised), or all of
            them together do not fit into memory.
    """
    shape = (len(samples), preprocessing.height, preprocessing.width, 3)
    try:
        images = np.empty(shape, dtype=np.uint8)
    except MemoryError:
        gib = np.prod(shape, dtype=np.float64) / 2**30
        raise DatasetError(
            f"{description}: {shape[0]:,} images of {shape[1]}x{shape[2]} take {gib:,.1f} GiB, more memory than "
            "this machine gives; use a smaller image size or fewer images"
        ) from None
    done = 0
    for block in stream_images(samples, preprocessing, description=description):
        images[done : done + len(block)] = block
        done += len(block)
    return images, samples.labels.copy()


class Fingerprint:
    """SHA-256 over shape, prepared bytes and labels of one split, from blocks of images as they come.

    The hashed bytes are "N,H,W,3" in ASCII, a zero byte, the images in C order, and the labels as
    little-endian int64: equal on every machine.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        """`shape`: of all images together, (N, H, W, 3)."""
        self._digest = hashlib.sha256(",".join(map(str, shape)).encode("ascii") + b"\0")

    def update(self, images: UInt8Array) -> None:
        """Add the next images, uint8 [n, H, W, 3]."""
        self._digest.update(np.ascontiguousarray(images).data)

    def hexdigest(self, labels: Int64Array) -> str:
        """64 hexadecimal digits, once all images were added; `labels` int64 [N]."""
        digest = self._digest.copy()
        digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
        return digest.hexdigest()


def fingerprint(images: UInt8Array, labels: Int64Array) -> str:
    """The `Fingerprint` of images that are all in memory.

    Args:
        images: uint8 [N, H, W, 3].
        labels: int64 [N].
    """
    found = Fingerprint(images.shape)
    found.update(images)
    return found.hexdigest(labels)
