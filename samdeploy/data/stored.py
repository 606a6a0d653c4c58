"""Samples whose images are encoded: each in a file of its own, or many in one container."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from samdeploy.arrays import Int64Array, UInt8Array, UInt64Array
from samdeploy.data.dataset import Samples, file_stamps
from samdeploy.data.file_notes import noted
from samdeploy.errors import ImageError
from samdeploy.images.decode import decode
from samdeploy.progress import progress_bar


def file_samples(paths: Sequence[str], labels: Int64Array) -> Samples:
    """Images that are files; `labels` int64 [N]."""
    return Samples(
        labels=labels,
        names=paths,
        load=partial(_load_file, paths),
        stamps=partial(file_stamps, paths),
        read=partial(read_file, paths),
    )


def container_samples(
    names: Sequence[str], labels: Int64Array, read: Callable[[int], bytes], stamps: Callable[[], UInt64Array]
) -> Samples:
    """Images inside larger files.

    Args:
        names: what to call each image.
        labels: int64 [N].
        read: index -> the encoded image; safe to call from many threads, and picklable.  Raises `ImageError` or
            `OSError`, whose texts need not name the image.
        stamps: see `Samples`.
    """
    return Samples(
        labels=labels,
        names=names,
        load=partial(_load_part, read, names),
        stamps=stamps,
        read=partial(_read_part, read, names),
    )


def container_stamps(paths: Sequence[str], containers: Int64Array, places: Int64Array) -> UInt64Array:
    """uint64 [N, 2]: when a container changes, all of its images do.

    Args:
        paths: of the containers.
        containers: int64 [N], in which one each image lies.
        places: int64 [N], its row or offset there.
    """
    stamps = file_stamps(paths)[containers]
    stamps[:, 1] += places.astype(np.uint64)
    return stamps


def container_digests(
    paths: Sequence[str], counts: Sequence[int], read: Callable[[int], bytes], which: str
) -> UInt64Array:
    """uint64 [N, 2]: the first half of the SHA-256 of each image's bytes; kept in the cache for each container.

    Args:
        paths: of the containers.
        counts: of images in each, one container after the other.
        read: see `container_samples`; an image that cannot be read is like no other one.
        which: of a container's images these are, for the cache.
    """
    found, start = [np.empty((0, 2), np.uint64)], 0
    with progress_bar("looking for copies", len(paths)) as advance:
        for path, count in zip(paths, counts, strict=True):
            find = partial(_digests, read, start, start + count)
            found.append(noted(Path(path), f"digests {which}", find)["digests"])
            start += count
            advance(1, "")
    return np.concatenate(found)


def read_file(paths: Sequence[str], index: int) -> bytes:
    """The file `paths[index]`."""
    return Path(paths[index]).read_bytes()


def _digests(read: Callable[[int], bytes], start: int, end: int) -> dict[str, UInt64Array]:
    digests = bytearray()
    for index in range(start, end):
        try:
            content = read(index)
        except (ImageError, OSError):
            content = b"unreadable %d" % index
        digests += hashlib.sha256(content).digest()[:16]
    return {"digests": np.frombuffer(digests, "<u8").reshape(-1, 2).astype(np.uint64)}


def _load_file(paths: Sequence[str], index: int) -> UInt8Array:
    return decode(Path(paths[index]))


def _read_part(read: Callable[[int], bytes], names: Sequence[str], index: int) -> bytes:
    try:
        return read(index)
    except ImageError as error:
        raise ImageError(f"{names[index]}: {error}") from None
    except OSError as error:
        raise ImageError(f"{names[index]}: cannot be read ({error.strerror or error})") from None


def _load_part(read: Callable[[int], bytes], names: Sequence[str], index: int) -> UInt8Array:
    content = _read_part(read, names, index)
    try:
        return decode(content)
    except ImageError as error:  # of bytes, it begins with "image: "
        raise ImageError(f"{names[index]}: {str(error).removeprefix('image: ')}") from None
