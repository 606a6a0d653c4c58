"""What a path to one's own images holds: class folders, a table of images, or tar shards."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from samdeploy.bundle.path_kind import path_kind
from samdeploy.data.sets.layout import find_layout, split_of, splits_mentioned
from samdeploy.images.walk import find_images, list_folder, natural_key

Kind = Literal["folder", "table", "shards"]

# The data sets of a user's own images; which one is meant shows in what the path holds.
OWN_IMAGES: tuple[Kind, ...] = ("folder", "table", "shards")
TEXT_TABLES = (".csv", ".tsv", ".jsonl")
COLUMN_FILES = (".parquet", ".arrow")
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
# Hugging Face's name for the table of a folder of images.
_METADATA = "metadata"


@dataclass(frozen=True, slots=True)
class Given:
    """A path, and what reads it.

    Attributes:
        root: as it was given.
        kind: the name of the data set that reads it.
        files: of a table or of shards, in natural order; those that a pattern names and that are missing, too.
    """

    root: Path
    kind: Kind
    files: tuple[Path, ...] = ()

    def is_missing(self) -> bool:
        """Whether nothing is there at all."""
        return not any(path.exists() for path in self.files or (self.root,))

    def split_of(self, file: Path) -> set[str]:
        """The splits that the name of one of several files mentions; of a single file none is taken from its name."""
        return set() if file == self.root else splits_mentioned(self.short(file).replace("/", " "))

    def short(self, file: Path) -> str:
        """One of `files` below `root`, for errors."""
        inside = file.relative_to(self.root) if file.is_relative_to(self.root) else Path()
        return inside.as_posix() if inside.parts else file.name


def what_is_given(root: Path) -> Given:
    """Look at the names of files, not into them; whatever is no table and no shards is "folder"."""
    if not root.is_dir():
        files = _matching(root)
        if all(_has_suffix(file, TEXT_TABLES + COLUMN_FILES) for file in files):
            return Given(root, "table", files)
        return Given(root, "shards", files) if all(_has_suffix(file, TARS) for file in files) else Given(root, "folder")
    holds_images = path_kind(root) == "folder of images"
    if holds_images and _has_class_folders(root):
        return Given(root, "folder")
    if files := (
        _metadata(root) or _below(root, (".parquet",), ("*", "*/*", "*/*/*")) or _below(root, (".arrow",), ("*", "*/*"))
    ):
        return Given(root, "table", files)
    if not holds_images and (files := _below(root, TARS, ("*", "*/*"))):
        return Given(root, "shards", files)
    tables = _below(root, TEXT_TABLES, ("*",))
    of_splits = tuple(file for file in tables if splits_mentioned(file.stem))
    return Given(root, "table", of_splits or tables) if tables else Given(root, "folder")


def is_list_of_images(root: Path) -> bool:
    """Whether `root` is no folder and yet a data set: a table, a tar, or a pattern of such files."""
    given = what_is_given(root)
    return bool(given.files) and not root.is_dir() and not given.is_missing()


def _matching(path: Path) -> tuple[Path, ...]:
    """The path itself, or the files of a pattern such as train-{000..009}.tar or train-*.tar."""
    if path.exists() or not re.search(r"[*?{]", str(path)):
        return (path,)
    found: list[Path] = []
    for text in _braces(str(path)):
        one = Path(text)
        starred = one.parent.glob(one.name) if re.search(r"[*?]", one.name) else ()
        found += _sorted(starred) or [one]
    return tuple(found)


def _braces(text: str) -> list[str]:
    """ "a{1..3}" -> a1, a2, a3; "{train,val}" -> train, val; numbers keep their leading zeros."""
    parts = re.split(r"(\{[^{}]*\})", text)
    choices: list[Sequence[str]] = []
    for part in parts:
        numbers = re.fullmatch(r"\{(\d+)\.\.(\d+)\}", part)
        if numbers:
            first, last = numbers.groups()
            choices.append([f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)] or [part])
        elif part.startswith("{") and "," in part:
            choices.append(part[1:-1].split(","))
        else:
            choices.append([part])
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def _below(root: Path, suffixes: tuple[str, ...], patterns: Iterable[str]) -> tuple[Path, ...]:
    """Files with these suffixes; none that is hidden or that Hugging Face's `datasets` keeps for itself."""
    found = (file for pattern in patterns for file in root.glob(pattern) if _has_suffix(file, suffixes))
    shown = (file for file in found if not any(part.startswith(".") for part in file.relative_to(root).parts))
    return tuple(_sorted(file for file in shown if not file.name.startswith("cache-") and file.is_file()))


def _has_suffix(file: Path, suffixes: tuple[str, ...]) -> bool:
    return file.name.lower().endswith(suffixes)


def _sorted(files: Iterable[Path]) -> list[Path]:
    return sorted(files, key=lambda file: [natural_key(part) for part in file.parts])


def _metadata(root: Path) -> tuple[Path, ...]:
    """metadata.jsonl, .csv or .parquet in the folder, or in those of its splits."""
    folders = [root, *(root / name for name in list_folder(root).folders if split_of(name))]
    suffixes = (".jsonl", ".csv", ".parquet")
    return tuple(
        file for folder in folders for suffix in suffixes if (file := folder / f"{_METADATA}{suffix}").is_file()
    )


def _has_class_folders(root: Path) -> bool:
    """Whether two folders with images lie side by side where classes would."""
    for folder in find_layout(root).folders.values():
        with_images = (name for name in list_folder(folder).folders if find_images(folder / name).images)
        if len(list(itertools.islice(with_images, 2))) == 2:
            return True
    return False
