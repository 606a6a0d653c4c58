"""Prepared images block by block, decoded ahead of the caller in threads: the set is never in memory as a whole."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np

from samdeploy.arrays import UInt8Array
from samdeploy.bundle.spec import Preprocessing
from samdeploy.data.dataset import Samples
from samdeploy.errors import NEXT_IMAGE, DatasetError, ImageError
from samdeploy.images.decode import resize
from samdeploy.progress import progress_bar
from samdeploy.terminal import printable

# Images per block: one task per image would cost more than a 28x28 image itself.
_BLOCK = 32
_SHOWN = 5


# Threads that share a block: neighbouring images are read at about the same time, which suits a file that is unpacked
# in order, and each thread still has enough to do.
_SHARING = 8


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def images_ahead() -> int:
    """So many images of a stream, in blocks of up to 64, are ready or in work at a time."""
    return 64 * _blocks_ahead(_threads())


def _blocks_ahead(threads: int) -> int:
    return -(-threads // _SHARING) + 1


def stream_images(
    samples: Samples,
    preprocessing: Preprocessing,
    *,
    description: str,
    block: int = _BLOCK,
    unreadable: dict[int, str] | None = None,
) -> Generator[UInt8Array]:
    """Decode and resize all samples, with a progress bar that advances as the caller takes them.

    Pillow releases Python's lock while it decodes and resizes, so threads are enough, and their number does not change
    the bytes.  Two blocks are ready or in work at any time, with more than eight threads some more.

    Close the generator (`contextlib.closing`) where the loop over it may end early: that ends the threads, and the bar.

    Args:
        samples: what to read.
        preprocessing: the size that the images are brought to.
        description: for the progress bar and for errors, for example "train".
        block: images per block.
        unreadable: to go on after images that cannot be read, each of which is black: filled with their indices, and
            why.

    Yields:
        uint8 [n, H, W, 3] RGB, n = `block` but for the last, in the order of `samples`; the caller's own.

    Raises:
        DatasetError: images are missing or damaged, and `unreadable` is None.  From the first on nothing more is
            yielded, but all are looked at before this is raised.
    """
    broken: dict[int, str] = {} if unreadable is None else unreadable
    goes_on = unreadable is not None

    threads = _threads()
    sharing = min(threads, _SHARING)

    def read(images: UInt8Array, start: int, first: int) -> None:
        for place in range(first, len(images), sharing):
            try:
                images[place] = resize(samples.load(start + place), preprocessing)
            except ImageError as error:
                broken[start + place] = str(error)
                images[place] = 0

    def begin(start: int) -> tuple[UInt8Array, list[Future[None]]]:
        shape = (min(block, len(samples) - start), preprocessing.height, preprocessing.width, 3)
        images = np.empty(shape, np.uint8)
        return images, [pool.submit(read, images, start, first) for first in range(sharing)]

    starts = iter(range(0, len(samples), block))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="images")
    try:
        with progress_bar(description, len(samples)) as advance:
            ahead = deque(map(begin, islice(starts, _blocks_ahead(threads))))
            while ahead:
                images, parts = ahead.popleft()
                for part in parts:
                    part.result()
                ahead.extend(map(begin, islice(starts, 1)))
                if goes_on or not broken:
                    yield images
                advance(len(images), f"{len(broken)} broken" if broken else "")
    finally:
        pool.shutdown(cancel_futures=True)
    if broken and not goes_on:
        raise DatasetError(_broken_text(samples, broken, description))


def find_broken(load: Callable[[int], object], count: int, description: str) -> list[str]:
    """Call `load` for `count` images in threads; why each of the broken ones cannot be read, in their order."""

    def problem(index: int) -> str | None:
        try:
            load(index)
        except ImageError as error:
            return str(error)
        return None

    found = []
    with ThreadPoolExecutor(_threads()) as pool, progress_bar(description, count) as advance:
        for text in pool.map(problem, range(count)):
            found += [text] if text else []
            advance(1, f"{len(found)} broken" if found else "")
    return found


def broken_text(reasons: Sequence[str], looked_at: int) -> str:
    """How many of the images cannot be read, then the first five reasons, each in a line of its own."""
    more = [f"and {len(reasons) - _SHOWN} more"] if len(reasons) > _SHOWN else []
    title = f"{len(reasons)} of {looked_at} images cannot be read; replace or remove them:"
    return NEXT_IMAGE.join([title, *map(printable, reasons[:_SHOWN]), *more])


def _broken_text(samples: Samples, broken: dict[int, str], description: str) -> str:
    shown = []
    for index in sorted(broken):
        name, reason = samples.names[index], broken[index]
        # A file's own error names it already; a name such as "data_batch_1[7]" is not in it.
        shown.append(reason if name in reason else f"{name}: {reason}")
    return f"{description}: {broken_text(shown, len(samples))}"
