"""What a data set is to the rest of samdeploy: classes, and three sets of labelled images."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from samdeploy.arrays import Int64Array, UInt8Array, UInt64Array
from samdeploy.data.texts import take_texts
from samdeploy.errors import DatasetError, InputError, unknown

OptionValue = str | int | float | bool

SPLITS = ("train", "val", "test")

# Pixels, or an encoded image.
_Image = TypeVar("_Image", UInt8Array, bytes)


@dataclass(frozen=True, slots=True)
class Samples:
    """Labelled images; the images are read when they are asked for.

    Attributes:
        labels: int64 [N]; each an index into the data set's classes.
        names: N texts, what to call each image in a message: its path, or its place in a file.
        load: index -> uint8 [h, w, 3] RGB at the original size, owned by the caller.  Safe to call from many
            threads, and picklable.  Raises `ImageError` where the image is missing or damaged.
        stamps: () -> uint64 [N, 2], for each image a value that changes when what it is read from does; None where
            reading is so cheap that prepared images are not worth keeping (see `samdeploy.data.cache`).
        read: index -> the encoded image, as its file or container holds it; None where images are arrays.  Likewise
            for threads.
    """

    labels: Int64Array
    names: Sequence[str]
    load: Callable[[int], UInt8Array]
    stamps: Callable[[], UInt64Array] | None = None
    read: Callable[[int], bytes] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Int64Array) -> Samples:
        """The samples at `indices`, int64 [M], in that order."""
        return Samples(
            labels=self.labels[indices],
            names=take_texts(self.names, indices),
            load=partial(_taken, self.load, indices),
            stamps=None if self.stamps is None else partial(_stamps_taken, self.stamps, indices),
            read=None if self.read is None else partial(_taken, self.read, indices),
        )

    def spread(self, count: int) -> Samples:
        """At most `count` samples at equal distances through the classes in order: always the same ones."""
        by_class = np.argsort(self.labels, kind="stable")
        return self.take(by_class[np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(np.int64)])

    def __add__(self, other: Samples) -> Samples:
        """These samples, and the others after them."""
        stamps = None
        if self.stamps is not None and other.stamps is not None:
            stamps = partial(_stamps_joined, self.stamps, other.stamps)
        read = None
        if self.read is not None and other.read is not None:
            read = partial(_joined, self.read, len(self), other.read)
        return Samples(
            labels=np.concatenate([self.labels, other.labels]),
            names=(*self.names, *other.names),
            load=partial(_joined, self.load, len(self), other.load),
            stamps=stamps,
            read=read,
        )


@dataclass(frozen=True, slots=True)
class Dataset:
    """Three disjoint sets of labelled images over the same classes.

    Attributes:
        name: as in `samdeploy.data.DATASETS`.
        classes: names; the index is the label and the logit's column.
        train: what the weights are fitted to.
        val: what the epoch and the settings are chosen on.
        test: touched once, at the end.
        notes: what the user should hear about the files that were found, for example how many were ignored.
        protocol: what the splits are used for, see `samdeploy.data.protocol`; only "honest" keeps them disjoint.
        cut: the splits that samdeploy cut off train itself; copies of an image are then its own affair.
    """

    name: str
    classes: tuple[str, ...]
    train: Samples
    val: Samples
    test: Samples
    notes: tuple[str, ...] = ()
    protocol: str = "honest"
    cut: tuple[str, ...] = ()

    def split(self, name: str) -> Samples:
        """The samples of "train", "val" or "test".

        Raises:
            InputError: `name` is none of `SPLITS`.
        """
        if name not in SPLITS:
            raise InputError(unknown("split", name, SPLITS))
        return {"train": self.train, "val": self.val, "test": self.test}[name]

    def relabelled(self, classes: tuple[str, ...]) -> Dataset:
        """The same images with labels that index `classes`, which may be more, and in another order.

        Raises:
            DatasetError: a class of the images is none of `classes`.
        """
        if classes == self.classes:
            return self
        others = [name for name in self.classes if name not in classes]
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            raise DatasetError(
                f"{self.name}: class {others[0]!r}{more} found, which the network does not know; its {len(classes)} "
                f"classes begin with {', '.join(map(repr, classes[:3]))}. Rename the folders, or import with --classes"
            )
        table = np.array([classes.index(name) for name in self.classes], np.int64)
        train, test = (replace(samples, labels=table[samples.labels]) for samples in (self.train, self.test))
        val = train if self.val is self.train else replace(self.val, labels=table[self.val.labels])
        return replace(self, classes=classes, train=train, val=val, test=test)


def array_samples(images: UInt8Array, labels: Int64Array, source: str, *, is_cheap: bool = False) -> Samples:
    """Samples over images that are in memory already.

    Args:
        images: uint8 [N, h, w] grey or [N, h, w, 3] RGB; kept, not copied.
        labels: int64 [N].
        source: names the images: "source[17]".
        is_cheap: there are so few that prepared ones are not worth keeping.
    """
    names = tuple(f"{source}[{index}]" for index in range(len(images)))
    stamps = None if is_cheap else partial(_array_stamps, images)
    return Samples(labels=labels, names=names, load=partial(_load_row, images), stamps=stamps)


def file_stamps(paths: Sequence[str]) -> UInt64Array:
    """uint64 [N, 2]: of each file's length, time of change and time of the last change of status, in nanoseconds.

    The last cannot be set by hand: it shows a file that was rewritten and given its old time again.  Zero for a file
    that is not there.
    """
    stamps = np.zeros((len(paths), 2), np.uint64)
    for row, path in zip(stamps, paths, strict=True):
        try:
            status = Path(path).stat()
        except OSError:
            continue
        times = struct.pack("<QQQ", status.st_size, status.st_mtime_ns % 2**64, status.st_ctime_ns % 2**64)
        row[:] = np.frombuffer(hashlib.sha256(times).digest()[:16], "<u8")
    return stamps


def _load_row(images: UInt8Array, index: int) -> UInt8Array:
    image: UInt8Array = images[index]
    if image.ndim == 2:
        return np.repeat(image[:, :, None], 3, axis=2)
    return image.copy()


def _taken(get: Callable[[int], _Image], indices: Int64Array, index: int) -> _Image:
    return get(int(indices[index]))


def _array_stamps(images: UInt8Array) -> UInt64Array:
    """All images of an array change together: one digest, beside each one's number."""
    digest = hashlib.sha256(np.ascontiguousarray(images).data).digest()
    stamps = np.empty((len(images), 2), np.uint64)
    stamps[:, 0] = np.frombuffer(digest[:8], "<u8")
    stamps[:, 1] = np.arange(len(images))
    return stamps


def _stamps_taken(stamps: Callable[[], UInt64Array], indices: Int64Array) -> UInt64Array:
    return stamps()[indices]


def _stamps_joined(one: Callable[[], UInt64Array], other: Callable[[], UInt64Array]) -> UInt64Array:
    return np.concatenate([one(), other()])


def _joined(get: Callable[[int], _Image], count: int, other: Callable[[int], _Image], index: int) -> _Image:
    return get(index) if index < count else other(index - count)
