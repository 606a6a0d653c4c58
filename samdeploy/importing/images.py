"""Whether the labelled images of an import can serve."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from samdeploy.bundle.names import JUDGED_FOLDER
from samdeploy.bundle.spec import Preprocessing
from samdeploy.data import open_dataset
from samdeploy.data.dataset import Dataset, Samples
from samdeploy.data.duplicates.file_copies import file_copies
from samdeploy.data.stream import broken_text, find_broken
from samdeploy.errors import DatasetError
from samdeploy.images.decode import check_image
from samdeploy.terminal import printable

# Of images without a split of their own for it; see `samdeploy.data.sets.judged_folder`.
SHARE_ASIDE = 0.1
# Of each split; a few seconds where the files are in the system's cache.
_CHECKED = 10_000
# Where more of the images that serve are test images too, a folder was copied.
_MOST_SHARED = 0.5


def open_images(root: Path) -> Dataset:
    """The images below `root`, or those that a table or tar shards list.

    Returns:
        The data set; its notes say how many images of train and val are test images too.

    Raises:
        DatasetError: they are missing, or too many of those that serve are test images too.
    """
    dataset = open_dataset(JUDGED_FOLDER, root, val_fraction=SHARE_ASIDE)
    for note in dataset.notes:
        print(printable(note), file=sys.stderr)
    return replace(dataset, notes=tuple(_shared(dataset)))


def _shared(dataset: Dataset) -> Iterator[str]:
    """Refuse, or warn of and yield, files in train or val that are in test too; `export` leaves those images out.

    Raises:
        DatasetError: most of them are.
    """
    parts = {"val": dataset.val} if dataset.train is dataset.val else {"train": dataset.train, "val": dataset.val}
    test = set(dataset.test.names)
    # Copies have one first file, which of the splits it may be in.
    first = file_copies([*dataset.test.names, *(name for samples in parts.values() for name in samples.names)])
    for split, samples in parts.items():
        shared = [name for name in samples.names if first.get(name) in test]
        if not shared:
            continue
        copies = f"{len(shared):,} of {len(samples):,} images of {split} are test images too, byte for byte"
        found = f"{copies}, for example {printable(shared[0])} = {printable(first[shared[0]])}"
        if len(shared) > _MOST_SHARED * len(samples):
            raise DatasetError(
                f"{found}; an export must not look at those. Give other images in {split}/ than in test/, or one of "
                "the two: --data FOLDER"
            )
        print(f"warning: {found}: they are left out of export, and accuracy on them says little", file=sys.stderr)
        yield copies


def check_images(dataset: Dataset, preprocessing: Preprocessing) -> None:
    """Look at the images without decoding them: a broken one ends `export` or `eval`.

    Raises:
        DatasetError: with the first that cannot be read.
    """
    parts = {"test": dataset.test, "val": dataset.val, "train": dataset.train}
    if dataset.train is dataset.val:
        del parts["train"]
    found = [
        (samples, index)
        for samples in (part.spread(_CHECKED) for part in parts.values())
        for index in range(len(samples))
    ]
    broken = find_broken(lambda index: _check(*found[index], preprocessing), len(found), "checking images")
    if broken:
        raise DatasetError(broken_text(broken, len(found)))


def _check(samples: Samples, index: int, preprocessing: Preprocessing) -> None:
    name = samples.names[index]
    if Path(name).is_file() or samples.read is None:
        check_image(name, preprocessing)
    else:
        check_image(samples.read(index), preprocessing, name)
