"""Images for a network that was trained elsewhere: what it is judged on, and a part that it never is.

The network needs no training images.  A few others are still needed, for INT8's calibration, FP16's head-room and the
golden images, and none of them may be judged::

    root/train/<class>/...   root/test/<class>/...    train serves; test is judged (val, where there is no test)
    root/val/<class>/...     root/test/<class>/...    val serves; test is judged
    root/test/<class>/...    or  root/<class>/...     a fixed part is set aside and serves; the rest is judged

A table or tar shards are read alike, by the splits that they list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from samdeploy.bundle.names import JUDGED_FOLDER
from samdeploy.data.dataset import Dataset, OptionValue, Samples
from samdeploy.data.duplicates.file_copies import file_copies
from samdeploy.data.sets.folder import folder_samples, refuse_folder, split_faults
from samdeploy.data.sets.given import what_is_given
from samdeploy.data.sets.image_list import ImageList
from samdeploy.data.sets.layout import find_layout
from samdeploy.data.sets.read_list import read_list
from samdeploy.data.sets.scan import scan_classes
from samdeploy.errors import DatasetError
from samdeploy.images.walk import natural_key
from samdeploy.terminal import printable

# Enough for ranges of activations; `val_fraction` of the images, where that is more.
LEAST_ASIDE = 32


def open_judged_folder(
    root: Path, *, options: Mapping[str, OptionValue], val_fraction: float, seed: int, download: bool
) -> Dataset:
    """The images below `root`; classes are the names of all class folders, in natural order, or the labels of a list.

    Args:
        val_fraction: of the images without a split of their own, that are set aside.

    Raises:
        DatasetMissing: `root` is missing or has no class folders.
        DatasetError: everything that is wrong with the folders; or there are too few images.
    """
    if what_is_given(root).kind != "folder":
        return _judged_list(read_list(root, options), val_fraction)
    layout = find_layout(root)
    scans = {part: scan_classes(folder) for part, folder in layout.folders.items()}
    faults = [*layout.faults, *(fault for scan in scans.values() for fault in split_faults(scan))]
    if faults:
        refuse_folder(root, faults, scans)
    classes = tuple(sorted({name for scan in scans.values() for name in scan.classes}, key=natural_key))
    notes = [*layout.notes, *(f"{part}: {note}" for part, scan in scans.items() for note in scan.notes())]
    samples = {part: folder_samples(scan, classes) for part, scan in scans.items()}
    folders = {part: f"{folder}/" for part, folder in layout.folders.items()}
    return _judged(_Images(classes, samples, folders, file_copies, notes), val_fraction)


@dataclass(frozen=True, slots=True)
class _Images:
    """Labelled images, listed.

    Attributes:
        classes: names; the index is the label.
        samples: split -> its images.
        folders: split -> what the names of its images begin with, and what is not theirs.
        copies: names of some images -> each copy's first one, see `file_copies`.
        notes: for the user.
    """

    classes: tuple[str, ...]
    samples: Mapping[str, Samples]
    folders: Mapping[str, str]
    copies: Callable[[Sequence[str]], dict[str, str]]
    notes: Sequence[str]


def _judged_list(found: ImageList, fraction: float) -> Dataset:
    """What a table or tar shards list."""
    classes = found.all_classes()
    everything, rows = found.all_samples(classes), found.rows()
    samples = {part: everything.take(of_part) for part, of_part in rows.items()}
    root = found.given.root
    folder = f"{root if root.is_dir() else root.parent}/"
    aside_of = rows.get("train", next(iter(rows.values())))
    copies = partial(found.copies, rows=aside_of)
    return _judged(_Images(classes, samples, dict.fromkeys(rows, folder), copies, found.notes), fraction)


def _judged(images: _Images, fraction: float) -> Dataset:
    samples, notes = images.samples, images.notes
    judged = next(part for part in ("test", "val", "train") if part in samples)
    if {"val", "test"} <= set(samples):
        val = samples["val"]
        return Dataset(JUDGED_FOLDER, images.classes, samples.get("train", val), val, samples["test"], tuple(notes))
    source = "train" if "train" in samples else judged
    rest, aside = _set_aside(samples[source], images.folders[source], fraction, images.copies)
    if source == judged:
        text = f"{len(aside):,} of {len(rest) + len(aside):,} images are set aside and never judged"
        return Dataset(JUDGED_FOLDER, images.classes, aside, aside, rest, (*notes, text))
    return Dataset(JUDGED_FOLDER, images.classes, rest, aside, samples[judged], tuple(notes))


def _set_aside(
    samples: Samples, folder: str, fraction: float, copies_of: Callable[[Sequence[str]], dict[str, str]]
) -> tuple[Samples, Samples]:
    """(what is left, what is set aside), chosen by the names below `folder`: the same ones wherever it lies.

    An image is set aside where the digest of its name is small, so that the choice stands when others come; in sets so
    small that this gives fewer than `LEAST_ASIDE`, the smallest are.  Copies go by the name of the first of them.
    """
    if len(samples) < 2 * LEAST_ASIDE:
        raise DatasetError(
            f"{printable(folder.removesuffix('/'))}: {len(samples)} images found, at least {2 * LEAST_ASIDE} expected "
            f"({LEAST_ASIDE} are set aside for calibration); add images"
        )
    copies = copies_of(samples.names)
    names = [copies.get(name, name).removeprefix(folder) for name in samples.names]
    digests = [hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in names]
    order = np.array(sorted(range(len(names)), key=digests.__getitem__), np.int64)
    small = sum(int.from_bytes(digest[:8]) < fraction * 2**64 for digest in digests)
    count = max(LEAST_ASIDE, small)
    while count < len(order) and digests[order[count]] == digests[order[count - 1]]:
        count += 1
    return samples.take(np.sort(order[count:])), samples.take(np.sort(order[:count]))
