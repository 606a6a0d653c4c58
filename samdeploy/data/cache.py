"""Prepared images on disk, so that every run after the first starts at once.

An entry belongs to a list of images and a size.  It is used only while every image's *stamp* is the one it was made
from: a digest of the pixels for sets that are one file, and length, time of change and time of the last change of
status for images in files of their own.  What that would miss: a file rewritten with the same length under a clock
set back to the nanosecond, on a file system that keeps no status time (FAT, some network ones) also one whose time was
set by hand.  Therefore a few images, other ones each time, are decoded anyway and compared.

Losing the cache costs time and nothing else: a full disk, a folder that may not be written to or a damaged entry is
reported, and the images are decoded.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import mmap
import os
import random
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import features

from samdeploy.arrays import Int64Array, UInt8Array, UInt64Array
from samdeploy.bundle.spec import Preprocessing
from samdeploy.data.cache_entry import (
    PARTIAL,
    CachedImages,
    DamagedCache,
    Origin,
    discard,
    labels_hash,
    open_entry,
    write_entry,
)
from samdeploy.data.dataset import Samples
from samdeploy.data.duplicates.image_hashes import ImageHashes, hash_images
from samdeploy.data.images import fingerprint, load_images
from samdeploy.data.stream import stream_images
from samdeploy.errors import ImageError
from samdeploy.files import cache_folder
from samdeploy.images.decode import resize

# Counts changes of `samdeploy.images.decode` and `samdeploy.images` that change bytes.
_PREPARATION = "2"
# Images decoded again whenever an entry is opened: 10 ms each for large photographs.
_SAMPLED = 4
# Entries that no run has opened for so long go when a new one is written.
_KEEP_DAYS = 30
# Of an entry.
_SUFFIX = ".images"
# Of what is known of a large file, see `samdeploy.data.file_notes`.
NOTES_SUFFIX = ".notes"


@dataclass(frozen=True, slots=True)
class PreparedSplit:
    """The images of one split at the network's size.

    Attributes:
        images: uint8 [N, H, W, 3] RGB, in memory or mapped from the cache; writable either way, and the caller's own.
        labels: int64 [N].
        hashes: of every image.
        fingerprint: SHA-256 over images and labels, see `samdeploy.data.images.Fingerprint`.
        is_cached: whether `images` are mapped from the cache.
    """

    images: UInt8Array
    labels: Int64Array
    hashes: ImageHashes
    fingerprint: str
    is_cached: bool


def images_folder() -> Path:
    """Where entries lie: below $SAMDEPLOY_CACHE, else below ~/.cache/samdeploy."""
    return cache_folder() / "images"


def prepare_split(
    samples: Samples, preprocessing: Preprocessing, *, description: str, cache: bool = True
) -> PreparedSplit:
    """The prepared images, from the cache where it holds them; else decoded, and put there.

    Two processes that ask for the same images at the same time: one decodes, the other waits and opens the result.

    Args:
        samples: what to read.
        preprocessing: the size that the images are brought to.
        description: for the progress bar and messages, for example "train".
        cache: False decodes, and touches no cache.

    Raises:
        DatasetError: images are missing or damaged, or do not fit into memory where the cache cannot be used.
    """
    if cache and samples.stamps is not None and len(samples):
        stamps = samples.stamps()
        try:
            path = entry_path(samples, preprocessing)
            # Entries are renamed into place, so that reading needs no lock, and a cache on a read-only disk will do.
            before = _inode(path)
            found = _open_entry(path, samples, stamps, preprocessing, description)
            if found is None:
                with _locked(path, description):
                    if _inode(path) != before:  # another process was faster
                        found = _open_entry(path, samples, stamps, preprocessing, description)
                    if found is None:
                        _build(path, samples, stamps, preprocessing, description)
                        found = open_entry(path)
            return _prepared(found, samples)
        except (OSError, DamagedCache) as error:
            needed = len(samples) * preprocessing.height * preprocessing.width * 3
            print(f"{description}: {_without_text(error, needed)}", file=sys.stderr)
    images, labels = load_images(samples, preprocessing, description=description)
    return PreparedSplit(
        images, labels, hash_images([images], samples.names, labels), fingerprint(images, labels), is_cached=False
    )


def stream_prepared(
    samples: Samples, preprocessing: Preprocessing, *, description: str, block: int
) -> Generator[UInt8Array]:
    """As `stream_images`, but out of the cache where a training left these very images there; writes no cache."""
    found = None
    if samples.stamps is not None and len(samples):
        try:
            path = entry_path(samples, preprocessing)
            found = _open_entry(path, samples, samples.stamps(), preprocessing, description)
        except OSError:
            found = None
    if found is None:
        with closing(stream_images(samples, preprocessing, description=description, block=block)) as blocks:
            yield from blocks
        return
    for start in range(0, len(found.images), block):
        images = np.array(found.images[start : start + block])
        found.mapping.madvise(mmap.MADV_DONTNEED)  # mapped pages would count as the process's memory
        yield images


def entry_path(samples: Samples, preprocessing: Preprocessing) -> Path:
    """Where the entry of these images at this size lies, whether there is one or not."""
    digest = hashlib.sha256()
    for number, name in enumerate(samples.names):  # one by one: all together would take 100 MB for a million
        digest.update(("\0" if number else "").encode() + name.encode("utf-8", "surrogateescape"))
    digest.update(json.dumps(_geometry(preprocessing)).encode())
    size = f"{preprocessing.width}x{preprocessing.height}"
    return images_folder() / f"{len(samples)}-{size}-{digest.hexdigest()[:20]}{_SUFFIX}"


def _open_entry(
    path: Path, samples: Samples, stamps: UInt64Array, preprocessing: Preprocessing, description: str
) -> CachedImages | None:
    """The entry where it holds what the files hold now; else None, after saying why."""
    try:
        found = open_entry(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DamagedCache as error:
        _say_again(description, f"the cache {path} is damaged: {error}")
        return None
    if found.images.shape != (len(samples), preprocessing.height, preprocessing.width, 3):
        _say_again(description, f"the cache {path} holds {list(found.images.shape)}")
        return None
    if found.key != _key(preprocessing):
        _say_again(description, "the cached images were made by another version of samdeploy, Pillow or libjpeg")
        return None
    changed = int((found.stamps != stamps).any(axis=1).sum())
    if changed:
        _say_again(description, f"{changed:,} of {len(samples):,} images changed since they were cached")
        return None
    for index in random.Random().sample(range(len(samples)), min(_SAMPLED, len(samples))):
        try:
            same = np.array_equal(resize(samples.load(index), preprocessing), found.images[index])
        except ImageError:  # decoding all of them says which are broken
            same = False
        if not same:
            _say_again(description, f"{samples.names[index]} differs from its cached image, though its time does not")
            return None
    with suppress(OSError):  # it may be another's
        os.utime(path)  # it is in use; see _prune
    return found


def _build(path: Path, samples: Samples, stamps: UInt64Array, preprocessing: Preprocessing, description: str) -> None:
    _prune(path.parent)
    shape = (len(samples), preprocessing.height, preprocessing.width, 3)
    with closing(stream_images(samples, preprocessing, description=description)) as blocks:
        write_entry(path, blocks, shape, Origin(stamps, samples.labels, _key(preprocessing)))


def _prepared(found: CachedImages, samples: Samples) -> PreparedSplit:
    # The labels are the data set's, not the cache's; only where they are the same is the fingerprint.
    known = found.labels_sha256 == labels_hash(samples.labels)
    return PreparedSplit(
        images=found.images,
        labels=samples.labels.copy(),
        hashes=ImageHashes(found.digests, found.perceptual, samples.names, samples.labels),
        fingerprint=found.fingerprint if known else fingerprint(found.images, samples.labels),
        is_cached=True,
    )


def _geometry(preprocessing: Preprocessing) -> list[str | int | None]:
    """What of the preprocessing changes bytes; mean and spread are applied in the network."""
    size = [preprocessing.height, preprocessing.width, preprocessing.fit, preprocessing.resize_short]
    return [*size, preprocessing.crop, preprocessing.resize]


def _key(preprocessing: Preprocessing) -> dict[str, str]:
    return {
        "preparation": _PREPARATION,
        "geometry": json.dumps(_geometry(preprocessing)),
        "pillow": PIL.__version__,
        "libjpeg": str(features.version("jpg")),
    }


def _inode(path: Path) -> int:
    """Which file lies there; 0 for none."""
    try:
        return path.stat().st_ino
    except OSError:
        return 0


@contextmanager
def _locked(path: Path, description: str) -> Iterator[None]:
    """Hold the entry's lock; a process that dies gives its lock back.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{description}: another process prepares these images; waiting for it", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            # Some network file systems have no locks.  Then both decode, and the last rename wins: the same bytes.
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        yield


def _prune(folder: Path) -> None:
    """Remove what was not used for `_KEEP_DAYS`, and what processes that were killed left a day ago."""
    now = time.time()
    for path in folder.iterdir():
        days = {PARTIAL: 1, _SUFFIX: _KEEP_DAYS, NOTES_SUFFIX: _KEEP_DAYS}.get(path.suffix)
        try:
            used = max(one.stat().st_mtime for one in (path, *path.glob("*")))
        except OSError:
            continue  # another process was faster
        if days is not None and now - used > 86_400 * days:
            discard(path)


def _say_again(description: str, why: str) -> None:
    print(f"{description}: {why}; they are prepared again", file=sys.stderr)


def _without_text(error: OSError | DamagedCache, needed: int) -> str:
    try:
        where = f" in {images_folder()}"
    except FileNotFoundError:  # no home; `error` says so
        where = ""
    if isinstance(error, DamagedCache):
        reason = str(error)
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason = f"the disk is full; they need {max(1, needed >> 20):,} MiB"
    else:
        reason = error.strerror or str(error)
    return (
        f"the images are not cached{where} ({reason}), so that each run decodes them anew; make room there, or "
        "name another folder: SAMDEPLOY_CACHE=/path"
    )
