"""Images for a network that was trained elsewhere: what it is judged on, and a part that it never is.

The network needs no training images.  A few others are still needed, for INT8's calibration, FP16's head-room and the
golden images, and none of them may be judged::

    root/train/<class>/...   root/test/<class>/...    train serves; test is judged (val, where there is no test)
    root/val/<class>/...     root/test/<class>/...    val serves; test is judged
    root/test/<class>/...    or  root/<class>/...     a fixed part is set aside and serves; the rest is judged
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from samdeploy.data.dataset import Dataset, OptionValue, Samples
from samdeploy.data.duplicates.file_copies import file_copies
from samdeploy.data.sets.folder import folder_samples, refuse_folder, split_faults
from samdeploy.data.sets.layout import find_layout
from samdeploy.data.sets.scan import scan_classes
from samdeploy.errors import DatasetError
from samdeploy.images.walk import natural_key
from samdeploy.terminal import printable

# Enough for ranges of activations; `val_fraction` of the images, where that is more.
LEAST_ASIDE = 32


def open_judged_folder(
    root: Path, *, options: Mapping[str, OptionValue], val_fraction: float, seed: int, download: bool
) -> Dataset:
    """The images below `root`; classes are the names of all class folders, in natural order.

    Args:
        val_fraction: of the images without a split of their own, that are set aside.

    Raises:
        DatasetMissing: `root` is missing or has no class folders.
        DatasetError: everything that is wrong with the folders; or there are too few images.
    """
    layout = find_layout(root)
    scans = {part: scan_classes(folder) for part, folder in layout.folders.items()}
    faults = [*layout.faults, *(fault for scan in scans.values() for fault in split_faults(scan))]
    if faults:
        refuse_folder(root, faults, scans)
    classes = tuple(sorted({name for scan in scans.values() for name in scan.classes}, key=natural_key))
    notes = [*layout.notes, *(f"{part}: {note}" for part, scan in scans.items() for note in scan.notes())]
    samples = {part: folder_samples(scan, classes) for part, scan in scans.items()}
    judged = next(part for part in ("test", "val", "train") if part in samples)
    if {"val", "test"} <= set(samples):
        val = samples["val"]
        return Dataset("judged-folder", classes, samples.get("train", val), val, samples["test"], tuple(notes))
    source = "train" if "train" in samples else judged
    rest, aside = _set_aside(samples[source], layout.folders[source], val_fraction)
    if source == judged:
        notes.append(f"{len(aside):,} of {len(rest) + len(aside):,} images are set aside and never judged")
        return Dataset("judged-folder", classes, aside, aside, rest, tuple(notes))
    return Dataset("judged-folder", classes, rest, aside, samples[judged], tuple(notes))


def _set_aside(samples: Samples, folder: Path, fraction: float) -> tuple[Samples, Samples]:
    """(what is left, what is set aside), chosen by the names below `folder`: the same ones wherever it lies.

    An image is set aside where the digest of its name is small, so that the choice stands when others come; in sets so
    small that this gives fewer than `LEAST_ASIDE`, the smallest are.  Copies go by the name of the first of them.
    """
    if len(samples) < 2 * LEAST_ASIDE:
        raise DatasetError(
            f"judged-folder: {len(samples)} images found in {printable(folder)}, at least {2 * LEAST_ASIDE} expected: "
            f"{LEAST_ASIDE} are set aside for calibration and never judged"
        )
    copies = file_copies(samples.names)
    names = [Path(copies.get(name, name)).relative_to(folder).as_posix() for name in samples.names]
    digests = [hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in names]
    order = np.array(sorted(range(len(names)), key=digests.__getitem__), np.int64)
    small = sum(int.from_bytes(digest[:8]) < fraction * 2**64 for digest in digests)
    count = max(LEAST_ASIDE, small)
    while count < len(order) and digests[order[count]] == digests[order[count - 1]]:
        count += 1
    return samples.take(np.sort(order[count:])), samples.take(np.sort(order[:count]))
