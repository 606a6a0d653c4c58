"""One entry of the cache: a folder that is written whole or not at all, and known to be sound when it is opened.

::

    images.npy        the prepared images, uint8 [N, H, W, 3]
    stamps.npy        uint64 [N, 2]
    digests.npy       uint64 [N, 2]
    perceptual.npy    uint64 [N, 4]
    entry.json        what they were made from, and the SHA-256 of all files

No byte goes unchecked, so that nothing has to be forced onto the disk: what a power cut damages is found and made
again.  `images.npy` has a hash for every 4 MiB, so that many threads can check at once.
"""

from __future__ import annotations

import errno
import hashlib
import io
import mmap
import os
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from samdeploy.arrays import UInt8Array, UInt64Array
from samdeploy.bundle.fields import read, to_json
from samdeploy.data.duplicates.image_hashes import FREQUENCIES, digests_of, perceptual_hashes
from samdeploy.data.images import Fingerprint
from samdeploy.errors import BundleError
from samdeploy.files import json_bytes, read_json, temporary_name

IMAGES, RECORD = "images.npy", "entry.json"
# An entry that is being written, or was thrown away.
PARTIAL = ".partial"
# Bytes under one hash: small enough to share the work among threads.
_CHUNK = 1 << 22


class DamagedCache(Exception):
    """The folder is no sound entry; says why.  Never leaves `samdeploy.data`: such an entry is made again."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What images are prepared from.

    Attributes:
        stamps: uint64 [N, 2], see `samdeploy.data.dataset.Samples`.
        labels: int64 [N]; an entry keeps their hash alone.
        key: how they are prepared.
    """

    stamps: UInt64Array
    labels: NDArray[np.int64]
    key: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CachedImages:
    """An entry, open.

    Attributes:
        mapping: of images.npy.
        images: uint8 [N, H, W, 3] RGB, mapped from the file; writing to it changes this process's copy alone.
        stamps, key: as in `Origin`.
        digests, perceptual: as in `samdeploy.data.duplicates.image_hashes.ImageHashes`.
        labels_sha256, fingerprint: of the labels at the time, and what `samdeploy.data.fingerprint` gave with them.
    """

    mapping: mmap.mmap
    images: UInt8Array
    stamps: UInt64Array
    digests: UInt64Array
    perceptual: UInt64Array
    key: Mapping[str, str]
    labels_sha256: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class _Record:
    """entry.json.

    Attributes:
        key, labels_sha256, fingerprint: as in `CachedImages`.
        images_sha256: of every `_CHUNK` bytes of images.npy.
        arrays_sha256: name -> of NAME.npy.
        sha256: of the JSON of all this, with "" here.
    """

    key: Mapping[str, str]
    labels_sha256: str
    fingerprint: str
    images_sha256: tuple[str, ...]
    arrays_sha256: Mapping[str, str]
    sha256: str = ""

    def sealed(self) -> _Record:
        """This, with its own hash."""
        return replace(self, sha256=_sha256(json_bytes(to_json(replace(self, sha256="")))))


def write_entry(path: Path, blocks: Iterable[UInt8Array], shape: tuple[int, int, int, int], origin: Origin) -> None:
    """Write images as they come, into a folder beside `path` that is renamed at the end.

    Args:
        blocks: uint8 [n, H, W, 3], one after the other.
        shape: of all of them together.

    Raises:
        OSError: the disk is full, or the folder cannot be written to; nothing is left behind.
        DatasetError: whatever `blocks` raises; likewise.
    """
    temporary = temporary_name(path, PARTIAL)
    temporary.mkdir()
    try:
        fingerprint = Fingerprint(shape)
        # Hashes go to the disk as they come, too: those of a million images would take 50 MB.
        with ExitStack() as files:
            images, digests, perceptual = (
                _ArrayWriter(files.enter_context((temporary / name).open("xb")), of, kind, chunk)
                for name, of, kind, chunk in (
                    (IMAGES, shape, "|u1", _CHUNK),
                    ("digests.npy", (shape[0], 2), "<u8", None),
                    ("perceptual.npy", (shape[0], FREQUENCIES**2 // 64), "<u8", None),
                )
            )
            for block in blocks:
                images.add(block)
                fingerprint.update(block)
                digests.add(digests_of(block))
                perceptual.add(perceptual_hashes(block))
        record = _Record(
            key=origin.key,
            labels_sha256=labels_hash(origin.labels),
            fingerprint=fingerprint.hexdigest(origin.labels),
            images_sha256=images.finish(),
            arrays_sha256={
                "stamps": _write_array(temporary / "stamps.npy", origin.stamps),
                "digests": "".join(digests.finish()),
                "perceptual": "".join(perceptual.finish()),
            },
        )
        (temporary / RECORD).write_bytes(json_bytes(to_json(record.sealed())))
        _put(temporary, path)
    except BaseException:
        discard(temporary)
        raise


def open_entry(path: Path) -> CachedImages:
    """Map an entry's images, and check every byte of it, in threads.

    Raises:
        FileNotFoundError: there is none.
        NotADirectoryError: nor can there be one: a folder on its way is a file.
        DamagedCache: a file is missing or has another hash.
    """
    path.stat()
    try:
        record = read(_Record, read_json(path / RECORD, "cache"), RECORD, BundleError)
        if record != record.sealed():
            raise DamagedCache(f"{RECORD} has another SHA-256")
        stamps, digests, perceptual = (_read_array(path, name, record) for name in ("stamps", "digests", "perceptual"))
        _check_images(path / IMAGES, record.images_sha256)
        # Copy on write: torch wants memory that it could write to, and what is written stays in this process.
        images: Any = npy.open_memmap(path / IMAGES, mode="c")
    except (BundleError, OSError, ValueError, KeyError) as error:
        raise DamagedCache(f"it cannot be read ({error})") from None
    return CachedImages(
        mapping=images._mmap,
        images=np.asarray(images),
        stamps=stamps,
        digests=digests,
        perceptual=perceptual,
        key=record.key,
        labels_sha256=record.labels_sha256,
        fingerprint=record.fingerprint,
    )


def labels_hash(labels: NDArray[np.int64]) -> str:
    """64 hexadecimal digits that say whether two splits have the same labels in the same order."""
    return _sha256(np.ascontiguousarray(labels, "<i8").data)


def discard(path: Path) -> None:
    """Remove an entry, or a file in its place, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


class _ArrayWriter:
    """Writes a .npy file part by part, and hashes it."""

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], kind: str, chunk: int | None) -> None:
        """
        Args:
            shape: of the whole array.
            kind: NumPy's name of its type.
            chunk: bytes under one hash; None for one hash of the file.
        """
        header = io.BytesIO()
        npy.write_array_header_1_0(header, {"descr": kind, "fortran_order": False, "shape": shape})
        size = header.tell() + int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
        self._file, self._kind, self._chunk, self._sha256 = file, kind, chunk or size, list[str]()
        self._digest, self._filled = hashlib.sha256(), 0
        # A disk that is too small should be known before an hour of decoding, not after it.
        os.posix_fallocate(file.fileno(), 0, size)
        self._write(header.getbuffer())

    def add(self, part: NDArray[Any]) -> None:
        """Append rows of the array."""
        self._write(np.ascontiguousarray(part, self._kind).data.cast("B"))

    def finish(self) -> tuple[str, ...]:
        """The SHA-256 of all chunks, once everything was added."""
        if self._filled:
            self._end_chunk()
        return tuple(self._sha256)

    def _write(self, data: memoryview) -> None:
        self._file.write(data)
        while data.nbytes:
            part, data = data[: self._chunk - self._filled], data[self._chunk - self._filled :]
            self._digest.update(part)
            self._filled += part.nbytes
            if self._filled == self._chunk:
                self._end_chunk()

    def _end_chunk(self) -> None:
        self._sha256.append(self._digest.hexdigest())
        self._digest, self._filled = hashlib.sha256(), 0


def _write_array(path: Path, array: UInt64Array) -> str:
    """Write a .npy file; its SHA-256."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    path.write_bytes(content.getbuffer())
    return _sha256(content.getbuffer())


def _read_array(folder: Path, name: str, record: _Record) -> UInt64Array:
    content = (folder / f"{name}.npy").read_bytes()
    if _sha256(content) != record.arrays_sha256[name]:
        raise DamagedCache(f"{name}.npy has another SHA-256")
    array: UInt64Array = np.load(io.BytesIO(content), allow_pickle=False)
    return array


def _check_images(path: Path, expected: tuple[str, ...]) -> None:
    """Read and not mapped: mapped pages would count as the memory of an evaluation that takes block after block."""

    def is_sound(number: int) -> bool:
        return _sha256(os.pread(file.fileno(), _CHUNK, number * _CHUNK)) == expected[number]

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with path.open("rb") as file, ThreadPoolExecutor(threads) as pool:
        size = os.fstat(file.fileno()).st_size
        if len(expected) != -(-size // _CHUNK):
            raise DamagedCache(f"{IMAGES} has {size:,} bytes, which are not those that were written")
        broken = sum(not sound for sound in pool.map(is_sound, range(len(expected))))
    if broken:
        raise DamagedCache(f"{broken} of {len(expected)} parts of {IMAGES} have another SHA-256")


def _put(temporary: Path, path: Path) -> None:
    """Rename an entry into place; one that is there goes, though others may still have it open."""
    try:
        temporary.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        old = temporary_name(path, PARTIAL)
        path.rename(old)
        temporary.rename(path)
        discard(old)


def _sha256(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()
