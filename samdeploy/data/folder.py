"""Your own pictures: one folder per class.

::

    root/train/<class>/**/*.jpg      root/val/<class>/...      root/test/<class>/...      (val, test: optional)
    root/<class>/**/*.jpg            everything is the training set
    root/test/<class>/**/*.jpg       enough for an evaluation, see `open_test_folder`

Where ``test`` is missing, 20 % of the training pictures are cut off as test (stratified, always the same ones
for the same files, see `samdeploy.data.split`); where ``val`` is missing, `val_fraction` of what is left, drawn
with `seed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from samdeploy.arrays import UInt8Array
from samdeploy.data.dataset import SPLITS, Dataset, OptionValue, Samples, file_stamps
from samdeploy.data.scan import Scan, scan_classes
from samdeploy.data.split import TEST_FRACTION, TEST_SEED, hold_out
from samdeploy.errors import DatasetError, DatasetMissing
from samdeploy.preprocess import decode

# Names that other tools use; reading only train/ beside one of these would silently waste a split.
_OTHER_NAMES = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}


def open_folder(
    root: Path, *, options: Mapping[str, OptionValue], val_fraction: float, seed: int, download: bool
) -> Dataset:
    """The pictures below `root`; classes are the class folders of the training set, in natural order.

    Raises:
        DatasetError: `root` is missing, has no pictures or fewer than two classes, a class folder is empty, a class
            of val or test is not in train, one file is in two splits, or a split that is to be cut would be too
            small.
    """
    scans = {part: scan_classes(folder) for part, folder in _folders(root).items()}
    classes = scans["train"].classes
    if len(classes) < 2:
        raise DatasetError(
            f"folder: {len(classes)} class found in {scans['train'].folder} ({', '.join(classes)}); "
            "at least 2 class folders expected"
        )
    notes = [note for part, scan in scans.items() for note in _notes(part, scan)]
    samples = {part: _samples(scan, classes) for part, scan in scans.items()}
    train = samples["train"]
    if "test" in samples:
        test = samples["test"]
    else:
        train, test = hold_out(train, TEST_FRACTION, TEST_SEED, classes=classes, part="test", dataset="folder")
        notes.append(f"no test folder in {root}: {len(test)} training pictures were cut off as test")
    if "val" in samples:
        val = samples["val"]
    else:
        train, val = hold_out(train, val_fraction, seed, classes=classes, part="val", dataset="folder")
        notes.append(f"no val folder in {root}: {len(val)} training pictures were cut off as val")
    _check_disjoint({"train": train, "val": val, "test": test})
    return Dataset("folder", classes, train, val, test, tuple(notes))


def holds_test_alone(root: Path) -> bool:
    """Whether there are test pictures below `root`, and none to train on."""
    return (root / "test").is_dir() and not (root / "train").is_dir()


def open_test_folder(root: Path, classes: tuple[str, ...]) -> tuple[Samples, tuple[str, ...]]:
    """The pictures below ``root/test`` for a network that knows `classes`, and what there is to say about the files.

    Raises:
        DatasetError: there are no pictures, a class folder is empty, or a class is not among `classes`.
    """
    scan = scan_classes(root / "test")
    return _samples(scan, classes), tuple(_notes("test", scan))


def _folders(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise DatasetMissing(
            f"folder: {found} found at {root}; a folder with one folder of pictures per class expected"
        )
    folders = {part: root / part for part in SPLITS if (root / part).is_dir()}
    if not folders:
        return {"train": root}
    if "train" not in folders:
        raise DatasetError(
            f"folder: {root} has {' and '.join(f'{part}/' for part in folders)} but no train/; "
            f"put the training pictures into {root / 'train'}"
        )
    for other, part in _OTHER_NAMES.items():
        if (root / other).is_dir() and part not in folders:
            raise DatasetError(
                f"folder: {root} has {other}/ beside train/; the name {part}/ is expected: "
                f"`mv {root / other} {root / part}`"
            )
    return folders


def _notes(part: str, scan: Scan) -> list[str]:
    notes = []
    if scan.ignored:
        notes.append(f"{part}: {len(scan.ignored)} files that are no pictures ignored, for example {scan.ignored[0]}")
    if scan.unlabelled:
        notes.append(
            f"{part}: {len(scan.unlabelled)} pictures outside of any class folder not used, for example "
            f"{scan.unlabelled[0]}"
        )
    return notes


def _samples(scan: Scan, classes: tuple[str, ...]) -> Samples:
    foreign = [name for name in scan.classes if name not in classes]
    if foreign:
        more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
        gone = [name for name in classes if name not in scan.classes]
        cure = "remove the folders"
        if gone:
            cure = f"missing there: {', '.join(gone[:5])}; rename the folders, or remove those that are no class"
        raise DatasetError(
            f"folder: {len(foreign)} of {len(scan.classes)} classes in {scan.folder} are not in the training set: "
            f"{', '.join(foreign[:5])}{more}. The training classes are {', '.join(classes[:10])}"
            f"{', ...' if len(classes) > 10 else ''}; {cure}"
        )
    paths = tuple(str(path) for files in scan.files for path in files)
    labels = np.repeat([classes.index(name) for name in scan.classes], [len(files) for files in scan.files])
    return Samples(
        labels=labels.astype(np.int64), names=paths, load=partial(_load, paths), stamps=partial(file_stamps, paths)
    )


def _check_disjoint(samples: Mapping[str, Samples]) -> None:
    # By device and inode, so that a test folder that is a link to the training folder is found.
    seen: dict[tuple[int, int], tuple[str, str]] = {}
    for part, split in samples.items():
        for name in split.names:
            try:
                status = Path(name).stat()
            except OSError:
                continue  # a broken link; load_images reports it together with all other unreadable pictures
            first_part, first_name = seen.setdefault((status.st_dev, status.st_ino), (part, name))
            if first_part != part:
                raise DatasetError(
                    f"folder: {name} ({part}) and {first_name} ({first_part}) are one and the same file; "
                    "a picture must be in one split only, or the accuracy is that on known pictures. Remove one"
                )


def _load(paths: tuple[str, ...], index: int) -> UInt8Array:
    return decode(Path(paths[index]))
