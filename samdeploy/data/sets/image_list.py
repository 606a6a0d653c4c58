"""Images that a table or an archive lists, with their labels and splits; and everything that is wrong with the list.

Splits work as for folders of images: where no row is test, 20 % of the training images are cut off, always the same
ones; where none is val, `val_fraction` of what is left.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from samdeploy.arrays import Int64Array, UInt8Array, UInt64Array
from samdeploy.data.dataset import SPLITS, Dataset, Samples
from samdeploy.data.duplicates.file_copies import digest_copies, file_copies
from samdeploy.data.sets.given import Given
from samdeploy.data.sets.layout import name_key, split_of
from samdeploy.data.split import cut_missing
from samdeploy.data.texts import PackedTexts
from samdeploy.errors import NEXT_FAULT, DatasetError, DatasetMissing
from samdeploy.images.walk import counted, natural_key, shortened
from samdeploy.terminal import printable

# Rows that are named for each kind of fault.
_SHOWN = 10


class Faults:
    """What is wrong: of each kind how many rows, and the first ten."""

    def __init__(self) -> None:
        self._rows: dict[str, list[str]] = defaultdict(list)
        self._counts: dict[str, int] = defaultdict(int)
        self._others: list[str] = []

    def add_row(self, what: str, row: str) -> None:
        """`what` is wrong with `row`, which names its place and what was found there."""
        self._counts[what] += 1
        if self._counts[what] <= _SHOWN:
            self._rows[what].append(printable(row))

    def add(self, text: str) -> None:
        """Something that is wrong with no row in particular."""
        self._others.append(text)

    def lines(self) -> list[str]:
        """One for each kind."""
        lines = list(self._others)
        for what, rows in self._rows.items():
            more = self._counts[what] - len(rows)
            rest = f" and {more:,} more" if more else ""
            lines.append(f"{what} ({counted(self._counts[what], 'row')}): {', '.join(rows)}{rest}")
        return lines

    def refuse(self, given: Given) -> None:
        """Raise for all of them together, if there are any.

        Raises:
            DatasetMissing: there is nothing to read at all.
            DatasetError: otherwise.
        """
        lines = self.lines()
        if not lines:
            return
        if len(lines) == 1:
            missing = len(given.files) == 1 and not given.files[0].exists()
            raise (DatasetMissing if missing else DatasetError)(f"{given.kind}: {lines[0]}")
        raise DatasetError(NEXT_FAULT.join([f"{given.kind}: {len(lines)} faults in {printable(given.root)}:", *lines]))


@dataclass(slots=True)
class ImageList:
    """One entry per image in `names`, `labels`, `splits` and `where`; of a million images, some 60 MB.

    Attributes:
        given: what was opened.
        names: what to call each image: its path, or its container and its place in it.
        labels: names of classes.
        splits: "train", "val", "test", or "" where the list does not say.
        where: the image's row, for errors.
        samples: (names, labels int64 [N]) -> all images of the list; not called while there are faults.
        digests: () -> uint64 [N, 2] of the bytes of each image; None where the images are files.
        classes: in the order that the file gives them; () where their names are put into order.
        faults: found so far.
        notes: for the user.
        mentioned: file -> the splits that its name mentions.
    """

    given: Given
    names: PackedTexts = field(default_factory=PackedTexts)
    labels: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    where: PackedTexts = field(default_factory=PackedTexts)
    samples: Callable[[Sequence[str], Int64Array], Samples] | None = None
    classes: tuple[str, ...] = ()
    digests: Callable[[], UInt64Array] | None = None
    faults: Faults = field(default_factory=Faults)
    notes: list[str] = field(default_factory=list)
    mentioned: dict[Path, set[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.mentioned = {file: self.given.split_of(file) for file in self.given.files}

    def add(self, name: str, label: str, split: str, where: str) -> None:
        """Append an image."""
        self.names.append(name)
        self.labels.append(sys.intern(label))
        self.splits.append(split)
        self.where.append(where)

    def extend(
        self, texts: tuple[UInt8Array, UInt64Array], labels: list[str], split: str, *, name: str, where: str
    ) -> None:
        """Append images that are called alike but for what comes before.

        Args:
            texts: as `PackedTexts.packed` gives them.
            labels: one for each.
            split: of all.
            name, where: what each name and each place begins with.
        """
        self.names.extend(*texts, name)
        self.labels += labels
        self.splits += [split] * len(labels)
        self.where.extend(*texts, where)

    def copies(self, names: Sequence[str], rows: Int64Array) -> dict[str, str]:
        """Of the images at `rows`, which are called `names`: name -> the first one of the same bytes, of all copies."""
        return file_copies(names) if self.digests is None else digest_copies(names, self.digests()[rows])

    def rows(self) -> dict[str, Int64Array]:
        """Split -> its entries, int64 [n]; all are train where the list has no splits."""
        if not any(self.splits):
            return {"train": np.arange(len(self.names))}
        count = len(self.splits)
        found = {part: np.flatnonzero(np.fromiter(map(part.__eq__, self.splits), np.bool_, count)) for part in SPLITS}
        return {part: rows for part, rows in found.items() if len(rows)}

    def all_classes(self) -> tuple[str, ...]:
        """Of all splits together.

        Raises:
            DatasetError: everything that is wrong with the list.
        """
        if not self.names and not self.faults.lines():
            self.faults.add(f"{printable(self.given.root)}: no images are listed there")
        self.faults.refuse(self.given)
        return self.classes or _in_order(self.labels)

    def all_samples(self, classes: tuple[str, ...]) -> Samples:
        """Every image, with labels that index `classes`."""
        places = {name: index for index, name in enumerate(classes)}
        labels = np.fromiter((places[label] for label in self.labels), np.int64, len(self.labels))
        assert self.samples is not None
        return self.samples(self.names, labels)


def read_split(value: str, found: ImageList, where: str) -> str:
    """ "valid" -> "val"; what is no split is a fault."""
    split = split_of(value)
    if split is None:
        what = "no split: expected train, val or test" if value.strip() else "without a split, which other rows have"
        found.faults.add_row(what, f"{where} ({value!r})" if value.strip() else where)
    return split or ""


def split_of_file(found: ImageList, file: Path) -> str:
    """The split that the name of one of several files gives all its rows; "" where none does."""
    if not any(found.mentioned.values()):
        return ""
    splits = found.mentioned[file]
    if len(splits) != 1:
        what = f"mentions {' and '.join(sorted(splits))}" if splits else "mentions no split, though others do"
        found.faults.add(f"{printable(file)}: its name {what}; rename it, for example to train-{printable(file.name)}")
        return ""
    return next(iter(splits))


def check_files(found: ImageList) -> None:
    """Find names that are no files, and files that are listed twice."""
    seen: dict[str, int] = {}
    names, found.names = found.names, PackedTexts()
    for index, name in enumerate(names):
        where = found.where[index]
        if not os.path.isfile(name):  # noqa: PTH113 - a Path each would double the time
            with_slashes = name.replace("\\", "/")
            if not os.path.isfile(with_slashes):  # noqa: PTH113
                found.faults.add_row("image missing", f"{where} ({name})")
                continue
            name = with_slashes
        found.names.append(name)
        first = seen.setdefault(os.path.normpath(name), index)
        if first != index:
            same = "the same" if found.labels[first] == found.labels[index] else "another label"
            found.faults.add_row("image listed before", f"{where} (as {found.where[first]}, {same})")


def open_list(found: ImageList, *, val_fraction: float, seed: int) -> Dataset:
    """A list as a data set.

    Raises:
        DatasetError: everything that is wrong with the list; or a split that is to be cut would be too small.
    """
    given, rows = found.given, found.rows()
    classes = found.classes or _in_order(found.labels[row] for row in rows.get("train", ()))
    if found.names:
        for text in _class_faults(found, rows, classes):
            found.faults.add(text)
    elif not found.faults.lines():
        found.faults.add(f"{printable(given.root)}: no images are listed there")
    found.faults.refuse(given)
    everything = found.all_samples(classes)
    samples = {part: everything.take(of_part) for part, of_part in rows.items()}
    cut = tuple(part for part in SPLITS if part not in samples)
    copies = found.copies(samples["train"].names, rows["train"]) if cut else {}
    notes = [*found.notes, *_missing_classes(samples, classes)]
    if copies:
        count = counted(len(copies), "copy", "copies")
        notes.append(f"{count} of training images, byte for byte: kept on one side of each cut")
    counts = cut_missing(
        samples, classes=classes, dataset=given.kind, val_fraction=val_fraction, seed=seed, copies=copies
    )
    notes += [
        f"no {part} images in {printable(given.root)}: {count} training images are held out as {part}"
        for part, count in counts.items()
    ]
    return Dataset(given.kind, classes, samples["train"], samples["val"], samples["test"], tuple(notes), cut=cut)


def open_test_list(found: ImageList, classes: tuple[str, ...]) -> tuple[Samples, tuple[str, ...]]:
    """The test images of a list, or all of them where it has no splits; and notes.

    Args:
        classes: that the network knows.

    Raises:
        DatasetError: everything that is wrong with the list, for example a class that is not among `classes`.
    """
    given, rows, notes = found.given, found.rows(), list(found.notes)
    if not any(found.splits):
        rows = {"test": rows["train"]}
        notes.append(
            f"{printable(given.root)} has no splits, so all of it is evaluated: {counted(len(found.names), 'image')}"
        )
    test = rows.get("test", np.empty(0, np.int64))
    for row in test:
        if found.labels[row] not in classes:
            _add_unknown(found, row, f"the network, which knows {shortened(map(repr, classes))}")
    if not len(test) and not found.faults.lines():
        raise DatasetMissing(f"{given.kind}: no test images are listed in {printable(given.root)}")
    found.faults.refuse(given)
    known = set(classes)
    others = {label for label in found.labels if label not in known}  # of rows that are not test
    samples = found.all_samples((*classes, *sorted(others))).take(test)
    return samples, (*notes, *_missing_classes({"test": samples}, classes))


def _class_faults(found: ImageList, rows: dict[str, Int64Array], classes: tuple[str, ...]) -> Iterator[str]:
    if "train" not in rows:
        yield f"only {' and '.join(rows)} images are listed; the training images are missing"
        return
    known = set(classes)
    for part, of_part in rows.items():
        for row in of_part if part != "train" else ():
            if found.labels[row] not in known:
                _add_unknown(found, row, "train")
    if len(known) == 1 and not found.faults.lines():  # else the other classes may be in the rows with faults
        yield f"1 class found ({printable(classes[0])!r}); at least 2 expected"
    unprintable = [label for label in classes if not label.isprintable()]
    if unprintable:
        yield f"classes have unprintable characters in their names, or are not UTF-8: {shortened(unprintable)}"
    twins: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        twins[name_key(name)].append(name)
    alike = [" and ".join(map(ascii, names)) for names in twins.values() if len(names) > 1]
    if alike:
        yield f"classes differ in case, Unicode form or spaces alone: {shortened(alike)}. Write them alike"


def _add_unknown(found: ImageList, row: int, whose: str) -> None:
    found.faults.add_row(f"class not in {whose}", f"{found.where[row]} ({found.labels[row]!r})")


def _missing_classes(samples: dict[str, Samples], classes: tuple[str, ...]) -> Iterator[str]:
    for part, of_part in samples.items():
        counts = np.bincount(of_part.labels, minlength=len(classes))[: len(classes)]
        missing = [classes[label] for label in np.flatnonzero(counts == 0)]
        if missing and part != "train":
            yield f"{part}: no images of {len(missing)} of {len(classes)} classes: {shortened(missing)}"


def _in_order(labels: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(labels), key=natural_key))
