"""Your own images: tar shards as webdataset has them.

::

    train-000000.tar     0001.jpg  0001.cls     0002.jpg  0002.json      0003.jpg  0003.txt

What belongs together has one name up to its first dot.  The label is the text of `.cls`, the value of a usual key of
`.json` (or of the option `label_key`), or the text of `.txt`.  One pass reads labels and where each image lies; images
are read from there when they are asked for.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from samdeploy.arrays import Int64Array
from samdeploy.bundle.spec import MAX_BYTES
from samdeploy.data.dataset import Dataset, OptionValue, Samples
from samdeploy.data.sets.given import TARS, Given, what_is_given
from samdeploy.data.sets.image_list import ImageList, open_list, split_of_file
from samdeploy.data.sets.tar_index import TarIndex, tar_index
from samdeploy.data.stored import container_samples, container_stamps
from samdeploy.errors import ImageError
from samdeploy.images.walk import shortened
from samdeploy.progress import progress_bar
from samdeploy.terminal import printable

# What unpacks a compressed tar, by suffix.
_UNPACK = {".gz": "gunzip", ".tgz": "gunzip", ".bz2": "bunzip2", ".xz": "unxz", ".zst": "unzstd"}


@dataclass(frozen=True, slots=True)
class _TarImages:
    """`images(index)`: the encoded image."""

    paths: tuple[str, ...]
    shards: Int64Array
    offsets: Int64Array
    sizes: Int64Array

    def __call__(self, index: int) -> bytes:
        size = int(self.sizes[index])
        if size > MAX_BYTES:
            raise ImageError(f"{size:,} bytes are too many, at most {MAX_BYTES:,} are read")
        with open(self.paths[self.shards[index]], "rb", buffering=0) as file:  # noqa: PTH123 - a Path costs as much
            content = os.pread(file.fileno(), size, int(self.offsets[index]))
        if len(content) < size:
            raise ImageError("the tar ends within it; copy it again")
        return content


def open_shards(
    root: Path, *, options: Mapping[str, OptionValue], val_fraction: float, seed: int, download: bool
) -> Dataset:
    """The images in a tar, in those of a folder, or in those of a pattern such as train-{000..009}.tar.

    Raises:
        DatasetMissing: there is no such file.
        DatasetError: everything that is wrong with the shards.
    """
    return open_list(read_shards(root, options), val_fraction=val_fraction, seed=seed)


def read_shards(root: Path, options: Mapping[str, OptionValue]) -> ImageList:
    """All images; faults are in the list, and no image is read."""
    given = what_is_given(root)
    if given.kind != "shards":
        given = Given(root, "shards", (root,))
    found, indices = ImageList(given), list[TarIndex]()
    with progress_bar("reading the tars", len(given.files)) as advance:
        for file in given.files:
            try:
                indices.append(tar_index(file, str(options.get("label_key", ""))))
                _add_tar(found, file, indices[-1])
            except FileNotFoundError:
                found.faults.add(f"{printable(file)}: no such file")
            except (OSError, tarfile.TarError) as error:
                found.faults.add(f"{printable(file)}: {_why(file, error)}")
            advance(1, "")
    found.samples = partial(_samples, tuple(map(str, given.files)), indices)
    return found


def _add_tar(found: ImageList, path: Path, index: TarIndex) -> None:
    split, short = split_of_file(found, path), found.given.short(path)
    for what, where in index.faults:
        found.faults.add_row(what, f"{short}:{where}")
    if index.unused:
        found.notes.append(f"{printable(path)}: {shortened(index.unused)} not used")
    labels = [index.classes[label] for label in index.labels]
    found.extend(index.names, labels, split, name=f"{path}:", where=f"{short}:")


def _why(file: Path, error: Exception) -> str:
    if file.name.lower().endswith(TARS[1:]):
        unpack = f"{_UNPACK[file.suffix.lower()]} {printable(file)}"
        return f"compressed, so that images cannot be read one by one; unpack it first: {unpack}"
    return f"no sound tar file ({error}); copy it again"


def _samples(paths: tuple[str, ...], indices: Sequence[TarIndex], names: Sequence[str], labels: Int64Array) -> Samples:
    """All images; every tar of `paths` was sound."""
    shards = np.repeat(np.arange(len(paths)), [len(index.offsets) for index in indices])
    offsets = np.concatenate([index.offsets for index in indices])
    images = _TarImages(paths, shards, offsets, np.concatenate([index.sizes for index in indices]))
    return container_samples(names, labels, images, partial(container_stamps, paths, shards, offsets))
