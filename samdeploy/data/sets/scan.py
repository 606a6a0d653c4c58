"""Find the images of every class below a folder of class folders."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import is_normalized

from samdeploy.data.sets.layout import name_key, split_of, splits_mentioned
from samdeploy.images.walk import Found, counted, find_images, is_image_name, list_folder, shortened, suffix_of
from samdeploy.terminal import is_misread, printable


@dataclass(slots=True)
class Scan:
    """What lies in a folder of class folders.

    Attributes:
        folder: that was scanned.
        images: class -> paths of its images at any depth; classes and images in natural order.
        loose: images in `folder` itself, in no class.
        others: everything below that is no image.
        faults: what must be changed before this can be used, one line for each kind.
        nested: class -> names of the folders directly inside it that hold images.
    """

    folder: Path
    images: dict[str, list[Path]] = field(default_factory=dict)
    loose: list[Path] = field(default_factory=list)
    others: Found = field(default_factory=Found)
    faults: list[str] = field(default_factory=list)
    nested: dict[str, set[str]] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the class folders."""
        return tuple(self.images)

    def warnings(self) -> Iterator[str]:
        """What may be meant otherwise: class folders inside what is read as the classes."""
        inside = set.intersection(*self.nested.values()) if self.nested else set()
        if len(self.nested) > 1 and len(inside) > 1:
            yield (
                f"warning: {shortened(f'{name}/' for name in self.nested)} are taken as the classes, and all hold "
                f"folders {shortened(sorted(inside))}; if those are the classes, put each one's images into one folder"
            )

    def notes(self) -> Iterator[str]:
        """What is passed over."""
        yield from self.others.notes()
        if self.loose:
            yield f"{counted(len(self.loose), 'image')} outside of any class folder not used: {shortened(self.loose)}"


def scan_classes(folder: Path) -> Scan:
    """Scan `folder`; nothing is raised, `Scan.faults` says what is wrong."""
    scan = Scan(folder)
    listing = list_folder(folder)
    scan.others.problems += listing.problems
    scan.others.system.update(listing.system)
    for name in listing.files:
        if is_image_name(name):
            scan.loose.append(folder / name)
        else:
            scan.others.skipped[suffix_of(name)] += 1
    empty = []
    for name in listing.folders:
        found = find_images(folder / name)
        scan.images[name], found.images = found.images, []
        depth = len(folder.parts) + 1
        inside = {path.parts[depth] for path in scan.images[name] if len(path.parts) > depth + 1}
        if inside:
            scan.nested[name] = inside
        if not scan.images[name]:
            others = "; ".join(found.notes())
            empty.append(f"{name} ({others})" if others else name)
        scan.others.add(found)
    scan.faults += _name_faults(scan)
    if empty:
        scan.faults.append(
            f"{len(empty)} of {len(listing.folders)} class folders in {printable(folder)} have no images: "
            f"{shortened(empty)}. Add images or remove the folder"
        )
    if scan.others.problems:
        places = counted(len(scan.others.problems), "folder or link", "folders or links")
        scan.faults.append(f"{places} cannot be read: {shortened(scan.others.problems)}")
    return scan


def compare_classes(scan: Scan, classes: tuple[str, ...], whose: str) -> Iterator[str]:
    """What is wrong with the class folders of a split: unknown ones, and known ones under another spelling.

    Args:
        classes: the known ones.
        whose: knows them: "the training set".
    """
    known = {name_key(name): name for name in classes}
    foreign = [name for name in scan.classes if name not in classes]
    respelled = [(name, known[name_key(name)]) for name in foreign if name_key(name) in known]
    unknown = [name for name in foreign if name_key(name) not in known]
    if respelled:
        pairs = shortened(f"{name!a} here, {other!a} there" for name, other in respelled)
        yield f"classes in {printable(scan.folder)} are spelled otherwise than in {whose}: {pairs}. Rename the folders"
    if unknown:
        yield (
            f"{len(unknown)} of {len(scan.classes)} classes in {printable(scan.folder)} are not in {whose}: "
            f"{_listed(unknown)}. Expected: {_listed(classes)}. Rename or remove the folders"
        )


def missing_classes(scan: Scan, classes: Iterable[str], part: str) -> Iterator[str]:
    """Which classes have no image in a split."""
    names = list(classes)
    there = {name_key(name) for name, images in scan.images.items() if images}
    missing = [name for name in names if name_key(name) not in there]
    if missing and scan.classes:
        yield f"{part}: no images of {len(missing)} of {len(names)} classes: {_listed(missing)}"


def _name_faults(scan: Scan) -> Iterator[str]:
    # Class names go into JSON, CSV and file names: no line breaks, no bytes that are not UTF-8.
    unprintable = [name for name in scan.images if not name.isprintable() and not is_misread(name)]
    misread = [name for name in scan.images if is_misread(name)]
    if misread:
        yield (
            f"class folders in {printable(scan.folder)} have names that this locale's encoding "
            f"({sys.getfilesystemencoding()}) lacks: {shortened(misread)}. Set LC_ALL=C.UTF-8"
        )
    if unprintable:
        yield (
            f"class folders in {printable(scan.folder)} have unprintable characters in their names: "
            f"{shortened(unprintable)}. Rename them"
        )
    twins: dict[str, list[str]] = defaultdict(list)
    for name in scan.images:
        twins[name_key(name)].append(name)
    alike = [" and ".join(map(ascii, names)) for names in twins.values() if len(names) > 1]
    if alike:
        yield (
            f"class folders in {printable(scan.folder)} differ in case, Unicode form or spaces alone: "
            f"{shortened(alike)}. Rename one, or move its images into the other"
        )
    with_images = [name for name, images in scan.images.items() if images]
    if with_images and all(split_of(name) for name in with_images):
        yield (
            f"all class folders in {printable(scan.folder)} are named like splits: {shortened(with_images)}; expected "
            "train/CLASS/image.jpg, or CLASS/image.jpg. Put each image into the folder of its class"
        )
    elif _are_splits(scan.nested):
        yield (
            f"{shortened(f'{name}/' for name in scan.nested if splits_mentioned(name))} in {printable(scan.folder)} "
            "look like splits that hold class folders; rename them to train, val or test"
        )
    inside = set().union(*scan.nested.values()) if scan.nested else set()
    if len(scan.images) > 1 and len({split_of(name) for name in inside}) > 1 and all(split_of(name) for name in inside):
        name = next(iter(scan.nested))
        yield (
            f"class folders in {printable(scan.folder)} hold split folders, for example {printable(name)}/: "
            f"{shortened(sorted(scan.nested[name]))}; expected train/{printable(name)}, not {printable(name)}/train"
        )


def _listed(names: Iterable[str]) -> str:
    """Names of classes; as escapes where two that look alike may differ."""
    return shortened(name if name == name.strip() and is_normalized("NFC", name) else ascii(name) for name in names)


def _are_splits(nested: Mapping[str, set[str]]) -> bool:
    """Whether folders such as seg_train and seg_test hold folders of their own."""
    mentioned = set().union(*map(splits_mentioned, nested)) if nested else set()
    return "train" in mentioned and len(mentioned) > 1
