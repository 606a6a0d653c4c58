"""One file of prepared pictures: written whole or not at all, mapped into memory, and known to be sound when opened.

::

    4096 bytes      "samdeploy-pictures-1\n", then the header: one JSON object, then zero bytes
    N*H*W*3 bytes   the pictures, uint8, in C order
    the rest        a plain .npz: `stamps`, `digests`, `perceptual`, `checksums`

The header holds the SHA-256 of the rest, and the rest holds the SHA-256 of every 4 MiB of pictures, so that no byte
goes unchecked, and many threads can check at once.  Pixels are all that a file can hold: opening one runs no code.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
import zipfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samdeploy.arrays import UInt8Array, UInt64Array
from samdeploy.data.duplicates.image_hashes import digests_of, perceptual_hashes
from samdeploy.files import json_bytes, temporary_name

_MAGIC = b"samdeploy-pictures-1\n"
_HEADER_BYTES = 4096
# Bytes of pictures under one checksum: small enough to share the work among threads.
_CHUNK = 1 << 22


class DamagedCache(Exception):
    """The file is no sound cache of pictures; says why.  Never leaves `samdeploy.data`: such a file is made again."""


@dataclass(frozen=True, slots=True)
class CachedPictures:
    """A cache file, open.

    Attributes:
        mapping: of the whole file.
        images: uint8 [N, H, W, 3] RGB, mapped from the file; writing to it changes this process's copy alone.
        stamps: uint64 [N, 2], see `samdeploy.data.dataset.Samples`.
        digests, perceptual: as in `samdeploy.data.duplicates.image_hashes.PictureHashes`.
        key: what the pictures were made from and how, as given to `write_cache_file`.
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


def write_cache_file(
    path: Path,
    blocks: Iterable[UInt8Array],
    shape: tuple[int, int, int, int],
    stamps: UInt64Array,
    labels: NDArray[np.int64],
    key: Mapping[str, str],
) -> None:
    """Write pictures as they come: a temporary file beside `path`, its disk space taken at once, fsync, rename.

    Args:
        blocks: uint8 [n, H, W, 3], one after the other.
        shape: of all of them together.
        stamps: uint64 [N, 2].
        labels: int64 [N]; only their hash is kept.
        key: texts.

    Raises:
        OSError: the disk is full, or the folder cannot be written to; nothing is left behind.
        DatasetError: whatever `blocks` raises; likewise.
    """
    # Late: images.py would import this file's users in a circle.
    from samdeploy.data.images import Fingerprint

    fingerprint, checksums = Fingerprint(shape), _Checksums()
    digests, perceptual = [np.empty((0, 2), np.uint64)], [np.empty((0, 4), np.uint64)]
    temporary = temporary_name(path, ".partial")
    try:
        with temporary.open("xb") as file:
            # A disk that is too small should be known before an hour of decoding, not after it.
            os.posix_fallocate(file.fileno(), 0, _HEADER_BYTES + int(np.prod(shape, dtype=np.int64)))
            file.seek(_HEADER_BYTES)
            for block in blocks:
                data = np.ascontiguousarray(block).data.cast("B")
                file.write(data)
                fingerprint.update(block)
                checksums.update(data)
                digests.append(digests_of(block))
                perceptual.append(perceptual_hashes(block))
            content = io.BytesIO()
            np.savez(
                content,
                allow_pickle=False,
                stamps=stamps,
                digests=np.concatenate(digests),
                perceptual=np.concatenate(perceptual),
                checksums=np.frombuffer(checksums.finish(), np.uint8),
            )
            rest = content.getvalue()
            file.write(rest)
            header = {
                "shape": list(shape),
                "rest_bytes": len(rest),
                "rest_sha256": hashlib.sha256(rest).hexdigest(),
                "key": dict(key),
                "labels_sha256": labels_hash(labels),
                "fingerprint": fingerprint.hexdigest(labels),
            }
            head = _MAGIC + json_bytes(header)
            file.seek(0)
            file.write(head.ljust(_HEADER_BYTES, b"\0"))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def open_cache_file(path: Path) -> CachedPictures:
    """Map a cache file and check every byte of it, in threads.

    Raises:
        FileNotFoundError: there is none.
        NotADirectoryError: nor can there be one: a folder on its way is a file.
        DamagedCache: it is shorter than it says, or a checksum differs, or it is something else.
    """
    try:
        with path.open("rb") as file:
            header = _header(file.read(_HEADER_BYTES))
            shape = tuple(header["shape"])
            pixels = int(np.prod(shape, dtype=np.int64))
            size = os.fstat(file.fileno()).st_size
            if size != _HEADER_BYTES + pixels + header["rest_bytes"]:
                raise DamagedCache(f"{size:,} bytes found, {_HEADER_BYTES + pixels + header['rest_bytes']:,} expected")
            file.seek(_HEADER_BYTES + pixels)
            rest = file.read()
            if hashlib.sha256(rest).hexdigest() != header["rest_sha256"]:
                raise DamagedCache("the checksum of its hashes differs")
            with np.load(io.BytesIO(rest), allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in ("stamps", "digests", "perceptual", "checksums")}
            _check_pixels(file.fileno(), pixels, found["checksums"].tobytes())
            # Copy on write: torch wants memory that it could write to, and what is written stays in this process.
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DamagedCache(f"it cannot be read ({error})") from None
    return CachedPictures(
        mapping=mapping,
        images=np.frombuffer(mapping, np.uint8, pixels, _HEADER_BYTES).reshape(shape),
        stamps=found["stamps"],
        digests=found["digests"],
        perceptual=found["perceptual"],
        key=header["key"],
        labels_sha256=header["labels_sha256"],
        fingerprint=header["fingerprint"],
    )


def labels_hash(labels: NDArray[np.int64]) -> str:
    """64 hexadecimal digits that say whether two splits have the same labels in the same order."""
    return hashlib.sha256(np.ascontiguousarray(labels, "<i8").data).hexdigest()


class _Checksums:
    """SHA-256 of every `_CHUNK` bytes of a stream."""

    def __init__(self) -> None:
        self._digest, self._filled, self._done = hashlib.sha256(), 0, b""

    def update(self, data: memoryview) -> None:
        while data.nbytes:
            part, data = data[: _CHUNK - self._filled], data[_CHUNK - self._filled :]
            self._digest.update(part)
            self._filled += part.nbytes
            if self._filled == _CHUNK:
                self._done += self._digest.digest()
                self._digest, self._filled = hashlib.sha256(), 0

    def finish(self) -> bytes:
        return self._done + self._digest.digest() if self._filled else self._done


def _header(block: bytes) -> dict[str, Any]:
    if not block.startswith(_MAGIC):
        raise DamagedCache("it begins like no cache of pictures")
    header = json.loads(block[len(_MAGIC) :].rstrip(b"\0"))
    shape = header["shape"]
    if len(shape) != 4 or shape[3] != 3 or any(not isinstance(side, int) or side < 0 for side in shape):
        raise DamagedCache(f"shape {shape} found")
    texts = [header["labels_sha256"], header["fingerprint"], *header["key"], *header["key"].values()]
    if not all(isinstance(text, str) for text in texts) or not isinstance(header["rest_bytes"], int):
        raise DamagedCache("its header holds values of wrong types")
    return dict(header)


def _check_pixels(descriptor: int, pixels: int, checksums: bytes) -> None:
    """Read and not mapped: mapped pages would count as the memory of an evaluation that takes block after block."""
    starts = range(0, pixels, _CHUNK)
    if len(checksums) != 32 * len(starts):
        raise DamagedCache(f"{len(checksums) // 32} checksums found, {len(starts)} expected")

    def is_sound(number: int) -> bool:
        chunk = os.pread(descriptor, min(_CHUNK, pixels - starts[number]), _HEADER_BYTES + starts[number])
        return hashlib.sha256(chunk).digest() == checksums[32 * number : 32 * (number + 1)]

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        broken = sum(not sound for sound in pool.map(is_sound, range(len(starts))))
    if broken:
        raise DamagedCache(f"{broken} of {len(starts)} checksums of pixels differ")
