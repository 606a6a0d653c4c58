"""Find the pictures of every class below a folder, in an order that no file system changes."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from samdeploy.errors import DatasetError, DatasetMissing
from samdeploy.preprocess import IMAGE_SUFFIXES

NaturalKey = tuple[tuple[str | int, ...], str]


@dataclass(frozen=True, slots=True)
class Scan:
    """What lies in a folder of class folders.

    Attributes:
        folder: that was scanned.
        classes: names of the class folders, in natural order.
        files: per class, its pictures at any depth, in natural order.
        ignored: files whose ending is no picture's.
        unlabelled: pictures that lie in `folder` itself, in no class.
    """

    folder: Path
    classes: tuple[str, ...]
    files: tuple[tuple[Path, ...], ...]
    ignored: tuple[Path, ...]
    unlabelled: tuple[Path, ...]


def natural_key(name: str) -> NaturalKey:
    """Sort key that puts "img2" before "img10" and ignores case; names that differ have different keys."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts)), name


def scan_classes(folder: Path) -> Scan:
    """Scan `folder`; names that start with a dot are passed over.

    Links to files are read, and a class folder may be a link; a link to a folder further down is refused,
    because it may lead in a circle.

    Raises:
        DatasetError: there are no class folders, a class folder has no picture, or something cannot be read.
    """
    try:
        entries = sorted((path for path in folder.iterdir() if path.name[0] != "."), key=lambda p: natural_key(p.name))
    except OSError as error:
        raise DatasetError(f"folder: {folder} cannot be read ({error.strerror})") from error
    class_folders = [path for path in entries if path.is_dir()]
    loose = [path for path in entries if not path.is_dir()]
    if not class_folders:
        raise DatasetMissing(
            f"folder: no class folders in {folder} ({len(loose)} files found there); expected one folder of pictures "
            f"per class, for example {folder / 'cat' / '1.jpg'}"
        )
    for path in class_folders:
        # Class names go into JSON, CSV and terminals: no line breaks, no bytes that are not UTF-8.
        if not path.name.isprintable():
            raise DatasetError(f"folder: class folder {path.name!r} in {folder} has unprintable characters; rename it")
    ignored = [path for path in loose if not _is_picture(path)]
    files = []
    empty = []
    for path in class_folders:
        pictures, others = _pictures(path)
        files.append(pictures)
        ignored += others
        if not pictures:
            empty.append(f"{path} ({len(others)} other files)")
    if empty:
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        raise DatasetError(
            f"folder: {len(empty)} of {len(class_folders)} class folders in {folder} have no pictures: "
            f"{', '.join(empty[:5])}{more}. Add pictures ({' '.join(IMAGE_SUFFIXES)}) or remove the folder"
        )
    return Scan(
        folder=folder,
        classes=tuple(path.name for path in class_folders),
        files=tuple(files),
        ignored=tuple(ignored),
        unlabelled=tuple(path for path in loose if _is_picture(path)),
    )


def _pictures(folder: Path) -> tuple[tuple[Path, ...], list[Path]]:
    found: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            if Path(place, name).is_symlink():
                raise DatasetError(
                    f"folder: {Path(place, name)} is a link to a folder, which may lead in a circle; "
                    "link the files instead, or copy the folder"
                )
        found += [Path(place, name) for name in names if not name.startswith(".")]
    found.sort(key=lambda path: [natural_key(part) for part in path.relative_to(folder).parts])
    return tuple(path for path in found if _is_picture(path)), [path for path in found if not _is_picture(path)]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _refuse(error: OSError) -> None:
    # os.walk passes over what it may not read; a class that is half there would go unnoticed.
    raise DatasetError(f"folder: {error.filename} cannot be read ({error.strerror})") from error
