"""Read whole sets of pictures into memory, and give the result a fingerprint."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from samdeploy.data.dataset import Int64Array, Samples
from samdeploy.errors import DatasetError, ImageError
from samdeploy.preprocess import UInt8Array, resize
from samdeploy.progress import progress_bar
from samdeploy.spec import Preprocessing

# Pictures per task: one task per picture would cost more than a 28x28 picture itself.
_CHUNK = 32
_SHOWN = 5


def load_images(samples: Samples, preprocessing: Preprocessing, *, description: str) -> tuple[UInt8Array, Int64Array]:
    """Decode and resize all samples, in threads, with a progress bar.

    Pillow releases Python's lock while it decodes and resizes, so threads are enough, and their number does
    not change the bytes.

    Args:
        samples: what to read.
        preprocessing: the size that the pictures are brought to.
        description: for the progress bar and for errors, for example "train".

    Returns:
        images uint8 [N, H, W, 3] RGB, in the order of `samples`, and labels int64 [N]; both are the caller's.

    Raises:
        DatasetError: pictures are missing or damaged (all are looked at before this is raised), or all of
            them together do not fit into memory.
    """
    shape = (len(samples), preprocessing.height, preprocessing.width, 3)
    try:
        images = np.empty(shape, dtype=np.uint8)
    except MemoryError:
        gib = np.prod(shape, dtype=np.float64) / 2**30
        raise DatasetError(
            f"{description}: {shape[0]:,} pictures of {shape[1]}x{shape[2]} take {gib:,.1f} GiB, more memory than "
            "this machine gives; use a smaller picture size or fewer pictures"
        ) from None
    broken: dict[int, str] = {}

    def read(start: int) -> int:
        stop = min(start + _CHUNK, len(samples))
        for index in range(start, stop):
            try:
                images[index] = resize(samples.load(index), preprocessing)
            except ImageError as error:
                broken[index] = str(error)
        return stop - start

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with progress_bar(description, len(samples)) as advance, ThreadPoolExecutor(threads) as pool:
        for done in pool.map(read, range(0, len(samples), _CHUNK)):
            advance(done, f"{len(broken)} broken" if broken else "")
    if broken:
        raise DatasetError(_broken_text(samples, broken, description))
    return images, samples.labels.copy()


def fingerprint(images: UInt8Array, labels: Int64Array) -> str:
    """SHA-256 (64 hexadecimal digits) over shape, prepared bytes and labels of one split.

    The hashed bytes are "N,H,W,3" in ASCII, a zero byte, the pictures in C order, and the labels as
    little-endian int64: equal on every machine.

    Args:
        images: uint8 [N, H, W, 3].
        labels: int64 [N].
    """
    digest = hashlib.sha256(",".join(map(str, images.shape)).encode("ascii") + b"\0")
    digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return digest.hexdigest()


def _broken_text(samples: Samples, broken: dict[int, str], description: str) -> str:
    shown = []
    for index in sorted(broken)[:_SHOWN]:
        name, reason = samples.names[index], broken[index]
        # A file's own error names it already; a name such as "data_batch_1[7]" is not in it.
        shown.append(reason if name in reason else f"{name}: {reason}")
    more = f"; and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
    return (
        f"{description}: {len(broken)} of {len(samples)} pictures cannot be read: {'; '.join(shown)}{more}. "
        "Replace these files, or remove them from the data set, and start again"
    )
