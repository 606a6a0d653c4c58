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
from samdeploy.data.stored import container_digests, container_samples, container_stamps
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

    @classmethod
    def of(cls, files: Sequence[Path], indices: Sequence[TarIndex]) -> _TarImages:
        """All images of all tars, each of which has an index."""
        shards = np.repeat(np.arange(len(files)), [len(index.offsets) for index in indices])
        offsets, sizes = (np.concatenate([getattr(index, name) for index in indices]) for name in ("offsets", "sizes"))
        return cls(tuple(map(str, files)), shards, offsets, sizes)

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
    found, indices, key = ImageList(given), list[TarIndex](), str(options.get("label_key", ""))
    with progress_bar("reading the tars", len(given.files)) as advance:
        for file in given.files:
            try:
                indices.append(tar_index(file, key))
                _add_tar(found, file, indices[-1])
            except FileNotFoundError:
                found.faults.add(f"{printable(file)}: no such file")
            except (OSError, tarfile.TarError) as error:
                found.faults.add(f"{printable(file)}: {_why(file, error)}")
            advance(1, "")
    if not found.faults.lines():
        images = _TarImages.of(given.files, indices)
        found.samples = partial(_samples, images)
        counts = [len(index.offsets) for index in indices]
        found.digests = partial(container_digests, images.paths, counts, images, key)
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


def _samples(images: _TarImages, names: Sequence[str], labels: Int64Array) -> Samples:
    return container_samples(
        names, labels, images, partial(container_stamps, images.paths, images.shards, images.offsets)
    )
