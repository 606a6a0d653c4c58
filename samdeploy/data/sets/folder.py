"""Your own images: one folder per class.

::

    root/train/<class>/**/*.jpg      root/val/<class>/...      root/test/<class>/...      (val, test: optional)
    root/<class>/**/*.jpg            everything is the training set

For an evaluation test/ alone is enough, and root/<class>/ of a folder that was not trained on is all test, see
`open_test_folder`.

Split folders may have any usual name, see `samdeploy.data.sets.layout`.  Where ``test`` is missing, 20 % of the
training images are cut off as test (stratified, always the same ones for the same files, see `samdeploy.data.split`);
where ``val`` is missing, `val_fraction` of what is left, drawn with `seed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import numpy as np

from samdeploy.data.dataset import SPLITS, Dataset, OptionValue, Samples
from samdeploy.data.duplicates.file_copies import file_copies
from samdeploy.data.sets.layout import find_layout
from samdeploy.data.sets.scan import Scan, compare_classes, missing_classes, scan_classes
from samdeploy.data.split import cut_missing
from samdeploy.data.stored import file_samples
from samdeploy.data.stream import broken_text, find_broken
from samdeploy.errors import NEXT_FAULT, DatasetError, DatasetMissing
from samdeploy.images.decode import decode
from samdeploy.images.walk import counted, list_folder, shortened
from samdeploy.terminal import printable

# Images that are decoded to name the broken ones together with other faults.
_LOOKED_AT = 10_000


def open_folder(
    root: Path, *, options: Mapping[str, OptionValue], val_fraction: float, seed: int, download: bool
) -> Dataset:
    """The images below `root`; classes are the class folders of the training set, in natural order.

    Raises:
        DatasetMissing: `root` is missing or has no class folders.
        DatasetError: everything that is wrong with the folders, and the images that cannot be read; or a split that is
            to be cut would be too small.
    """
    layout = find_layout(root)
    scans = {part: scan_classes(folder) for part, folder in layout.folders.items()}
    if "train" not in scans:
        found = " and ".join(f"{folder.name}/" for folder in layout.folders.values())
        layout.faults.append(f"{printable(root)} has {printable(found)} but no train/: the training images are missing")
    faults = [*layout.faults, *_faults(scans)]
    classes = scans["train"].classes if "train" in scans else ()
    missing = [
        note for part in ("val", "test") if part in scans for note in missing_classes(scans[part], classes, part)
    ]
    if faults:
        refuse_folder(root, faults + missing, scans)
    notes = [*scans["train"].warnings(), *layout.notes]
    notes += [f"{part}: {note}" for part, scan in scans.items() for note in scan.notes()] + missing
    samples = {part: folder_samples(scan, classes) for part, scan in scans.items()}
    cut = tuple(part for part in SPLITS if part not in samples)
    copies = file_copies(samples["train"].names) if cut else {}
    if copies:
        notes.append(
            f"{counted(len(copies), 'copy', 'copies')} of training images, byte for byte: kept on one side of each cut"
        )
    try:
        counts = cut_missing(
            samples, classes=classes, dataset="folder", val_fraction=val_fraction, seed=seed, copies=copies
        )
    except DatasetError as error:
        refuse_folder(root, [str(error).removeprefix("folder: ")], scans)
    notes += [
        f"no {part} folder in {printable(root)}: {count} training images are held out as {part}"
        for part, count in counts.items()
    ]
    return Dataset("folder", classes, samples["train"], samples["val"], samples["test"], tuple(notes), cut=cut)


def has_test_folder(root: Path) -> bool:
    """Whether a folder below `root` is the test split."""
    return root.is_dir() and "test" in find_layout(root).folders


def is_class_tree(root: Path) -> bool:
    """Whether the class folders lie directly below `root`, without any split."""
    return root.is_dir() and find_layout(root).folders == {"train": root}


def open_test_folder(root: Path, classes: tuple[str, ...]) -> tuple[Samples, tuple[str, ...]]:
    """The images of the test folder in `root`, or of all its class folders where it has none; and notes about them.

    Args:
        classes: that the network knows.

    Raises:
        DatasetError: everything that is wrong with the folder, for example a class that is not among `classes`.
    """
    layout = find_layout(root)
    folder = layout.folders.get("test", root)
    scan = scan_classes(folder)
    faults = [*layout.faults, *split_faults(scan), *compare_classes(scan, classes, "the training set")]
    if faults:
        refuse_folder(root, faults, {"test": scan}, looks=False)
    samples = folder_samples(scan, classes)
    notes = layout.notes + [f"test: {note}" for note in scan.notes()]
    if folder == root:
        notes.append(f"{printable(root)} has no test folder: all {counted(len(samples), 'image')} are evaluated")
    return samples, (*notes, *missing_classes(scan, classes, "test"))


def _faults(scans: Mapping[str, Scan]) -> Iterator[str]:
    for scan in scans.values():
        yield from split_faults(scan)
    if "train" in scans and scans["train"].classes:
        train = scans["train"]
        if len(train.classes) < 2:
            yield _one_class(train)
        for part, scan in scans.items():
            if part != "train":
                yield from compare_classes(scan, train.classes, "the training set")
    yield from _shared_files(scans)


def split_faults(scan: Scan) -> Iterator[str]:
    """What is wrong with one folder of class folders."""
    yield from scan.faults
    if not scan.classes and not scan.others.problems:
        images, others = counted(len(scan.loose), "image"), counted(scan.others.skipped.total(), "other file")
        yield (
            f"no class folders in {printable(scan.folder)} ({images} and {others} there); expected one folder of "
            f"images per class, for example {printable(scan.folder / 'cat' / '1.jpg')}"
        )


def _one_class(train: Scan) -> str:
    (name,) = train.classes
    text = f"1 class found in {printable(train.folder)} ({printable(name)}); at least 2 class folders expected"
    inside = list_folder(train.folder / name).folders
    if inside:
        text += f". {printable(name)}/ holds folders ({shortened(inside)}): --data {printable(train.folder / name)}?"
    return text


def refuse_folder(root: Path, faults: list[str], scans: Mapping[str, Scan], *, looks: bool = True) -> NoReturn:
    """Raise for all faults together; where it `looks`, after a look at the images, too."""
    paths = tuple(str(path) for scan in scans.values() for images in scan.images.values() for path in images)
    if not paths and len(faults) == 1:
        raise DatasetMissing(f"folder: {faults[0]}")
    looked_at = paths[:_LOOKED_AT] if looks else ()
    broken = find_broken(lambda index: decode(Path(looked_at[index])), len(looked_at), "checking images")
    if broken:
        faults.append(broken_text(broken, len(looked_at)))
    if len(faults) == 1:
        raise DatasetError(f"folder: {faults[0]}")
    raise DatasetError(NEXT_FAULT.join([f"folder: {len(faults)} faults in {printable(root)}:", *faults]))


def folder_samples(scan: Scan, classes: tuple[str, ...]) -> Samples:
    paths = tuple(str(path) for images in scan.images.values() for path in images)
    labels = np.repeat([classes.index(name) for name in scan.images], list(map(len, scan.images.values())))
    return file_samples(paths, labels.astype(np.int64))


def _shared_files(scans: Mapping[str, Scan]) -> Iterator[str]:
    """Files in two of the user's splits, by device and inode: a test folder that is a link to the training folder."""
    seen: dict[tuple[int, int], tuple[str, Path]] = {}
    shared = []
    for part, scan in scans.items():
        for path in _all(scan.images.values()):
            try:
                status = path.stat()
            except OSError:
                continue  # a broken link, named with the other images that cannot be read
            first_part, first = seen.setdefault((status.st_dev, status.st_ino), (part, path))
            if first_part != part:
                shared.append(f"{path} ({part}) and {first} ({first_part})")
    if shared:
        yield (
            f"{counted(len(shared), 'file is', 'files are')} in two splits: {shortened(shared)}. Keep each image in "
            "one split only, or the accuracy is that on known images"
        )


def _all(images: Iterable[list[Path]]) -> Iterator[Path]:
    for paths in images:
        yield from paths
