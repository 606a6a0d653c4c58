"""Your own images: tar shards as webdataset has them.

::

    train-000000.tar     0001.jpg  0001.cls     0002.jpg  0002.json      0003.jpg  0003.txt

What belongs together has one name up to its first dot.  The label is the text of `.cls`, the value of a usual key of
`.json` (or of the option `label_key`), or the text of `.txt`.  One pass reads labels and where each image lies; images
are read from there when they are asked for.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from samdeploy.arrays import Int64Array
from samdeploy.bundle.spec import MAX_BYTES
from samdeploy.data.dataset import Dataset, OptionValue, Samples
from samdeploy.data.sets.given import TARS, Given, what_is_given
from samdeploy.data.sets.image_list import ImageList, open_list, split_of_file
from samdeploy.data.stored import container_samples, container_stamps
from samdeploy.errors import ImageError
from samdeploy.images.walk import is_image_name, shortened
from samdeploy.terminal import printable

# What holds a label, the most certain first.
_LABELS = ("cls", "json", "txt")
_KEYS = ("label", "class", "cls", "target", "category", "class_name")
# A label that is longer is none.
_LONGEST_LABEL = 1 << 20

# What unpacks a compressed tar, by suffix.
_UNPACK = {".gz": "gunzip", ".tgz": "gunzip", ".bz2": "bunzip2", ".xz": "unxz", ".zst": "unzstd"}


@dataclass(slots=True)
class _Index:
    """Where each image lies: the number of its shard, and its offset and length there."""

    shards: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Sample:
    """The members of one name: images as (member's name, offset, size), labels by suffix."""

    images: list[tuple[str, int, int]] = field(default_factory=list)
    labels: dict[str, bytes] = field(default_factory=dict)


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
    found, index = ImageList(given), _Index()
    for number, file in enumerate(given.files):
        before = len(found.names)
        try:
            _read_tar(found, index, file, str(options.get("label_key", "")))
        except FileNotFoundError:
            found.faults.add(f"{printable(file)}: no such file")
        except (OSError, tarfile.TarError) as error:
            found.faults.add(f"{printable(file)}: {_why(file, error)}")
        index.shards += [number] * (len(found.names) - before)
    found.samples = partial(_samples, tuple(map(str, given.files)), index)
    return found


def _read_tar(found: ImageList, index: _Index, path: Path, key: str) -> None:
    split, short = split_of_file(found, path), found.given.short(path)
    samples: dict[str, _Sample] = {}
    others: set[str] = set()
    with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            if not member.isreg() or member.issparse():
                if is_image_name(member.name) and not member.isdir():
                    found.faults.add_row("a link or a sparse file", f"{short}:{member.name}")
                continue
            folder, _, base = member.name.rpartition("/")
            if base.startswith("."):  # what macOS adds
                continue
            stem, _, suffix = base.partition(".")
            sample = samples.setdefault(f"{folder}/{stem}" if folder else stem, _Sample())
            suffix = suffix.lower()
            if is_image_name(base):
                sample.images.append((member.name, member.offset_data, member.size))
            elif suffix in _LABELS and member.size <= _LONGEST_LABEL:
                sample.labels[suffix] = os.pread(file.fileno(), member.size, member.offset_data)
            else:
                others.add(f".{suffix}")
            tar.members = []  # type: ignore[attr-defined]  # it would keep every header
        _check_end(file.fileno(), tar.offset)
    if others:
        found.notes.append(f"{printable(path)}: {shortened(sorted(others))} not used")
    for name, sample in samples.items():
        where = f"{short}:{name}"
        if len(sample.images) == 1:
            (image, offset, size), label = sample.images[0], _label(sample, key)
            if label is None:
                expected = f"a json with the key {key}" if key else ", ".join(_LABELS)
                found.faults.add_row(f"without a label ({expected})", where)
                continue
            found.add(f"{path}:{image}", label, split, where)
            index.offsets.append(offset)
            index.sizes.append(size)
        elif sample.images:
            found.faults.add_row("several images under one name", where)
        elif sample.labels:
            found.faults.add_row("a label without an image", where)


def _check_end(handle: int, offset: int) -> None:
    """A tar ends with zeros; anything else there is a header that `tarfile` took for the end."""
    if any(os.pread(handle, tarfile.BLOCKSIZE, offset)):
        raise tarfile.ReadError(f"damaged at byte {offset:,}")


def _why(file: Path, error: Exception) -> str:
    if file.name.lower().endswith(TARS[1:]):
        unpack = f"{_UNPACK[file.suffix.lower()]} {printable(file)}"
        return f"compressed, so that images cannot be read one by one; unpack it first: {unpack}"
    return f"no sound tar file ({error}); copy it again"


def _label(sample: _Sample, key: str) -> str | None:
    """The class, or None."""
    for suffix in ("json",) if key else _LABELS:
        content = sample.labels.get(suffix)
        if content is None:
            continue
        text = content.decode("utf-8-sig", "surrogateescape").strip()
        return (_json_label(text, key) if suffix == "json" else text) or None
    return None


def _json_label(text: str, key: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    if isinstance(value, dict):
        value = value.get(key or next((usual for usual in _KEYS if usual in value), ""))
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _samples(paths: tuple[str, ...], index: _Index, names: Sequence[str], labels: Int64Array) -> Samples:
    shards, offsets, sizes = (np.array(column, np.int64) for column in (index.shards, index.offsets, index.sizes))
    images = _TarImages(paths, shards, offsets, sizes)
    return container_samples(names, labels, images, partial(container_stamps, paths, shards, offsets))
