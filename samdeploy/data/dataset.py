"""What a data set is to the rest of samdeploy: classes, and three sets of labelled pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from samdeploy.errors import InputError, unknown
from samdeploy.preprocess import UInt8Array

Int64Array = NDArray[np.int64]
OptionValue = str | int | float | bool

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Samples:
    """Labelled pictures; the pictures are read when they are asked for.

    Attributes:
        labels: int64 [N]; each an index into the data set's classes.
        names: N texts, what to call each picture in a message: its path, or its place in a file.
        load: index -> uint8 [h, w, 3] RGB at the original size, owned by the caller.  Safe to call from many
            threads, and picklable.  Raises `ImageError` where the picture is missing or damaged.
    """

    labels: Int64Array
    names: Sequence[str]
    load: Callable[[int], UInt8Array]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Int64Array) -> Samples:
        """The samples at `indices`, int64 [M], in that order."""
        return Samples(
            labels=self.labels[indices],
            names=tuple(self.names[index] for index in indices),
            load=partial(_load_taken, self.load, indices),
        )


@dataclass(frozen=True, slots=True)
class Dataset:
    """Three disjoint sets of labelled pictures over the same classes.

    Attributes:
        name: as in `samdeploy.data.DATASETS`.
        classes: names; the index is the label and the logit's column.
        train: what the weights are fitted to.
        val: what the epoch and the settings are chosen on.
        test: touched once, at the end.
        notes: what the user should hear about the files that were found, for example how many were ignored.
    """

    name: str
    classes: tuple[str, ...]
    train: Samples
    val: Samples
    test: Samples
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> Samples:
        """The samples of "train", "val" or "test".

        Raises:
            InputError: `name` is none of `SPLITS`.
        """
        if name not in SPLITS:
            raise InputError(unknown("split", name, SPLITS))
        return {"train": self.train, "val": self.val, "test": self.test}[name]


def array_samples(images: UInt8Array, labels: Int64Array, source: str) -> Samples:
    """Samples over pictures that are in memory already.

    Args:
        images: uint8 [N, h, w] grey or [N, h, w, 3] RGB; kept, not copied.
        labels: int64 [N].
        source: names the pictures: "source[17]".
    """
    names = tuple(f"{source}[{index}]" for index in range(len(images)))
    return Samples(labels=labels, names=names, load=partial(_load_row, images))


def _load_row(images: UInt8Array, index: int) -> UInt8Array:
    image: UInt8Array = images[index]
    if image.ndim == 2:
        return np.repeat(image[:, :, None], 3, axis=2)
    return image.copy()


def _load_taken(load: Callable[[int], UInt8Array], indices: Int64Array, index: int) -> UInt8Array:
    return load(int(indices[index]))
