"""Find image files below a folder: one walk for training, evaluation, `predict`, `explain` and `bench`.

Every entry ends up in one of four places: it is an image, another file (counted by suffix), a system entry (counted by
name), or a problem, with the reason.  Nothing is decoded.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from samdeploy.errors import ImageError
from samdeploy.terminal import printable

NaturalKey = tuple[tuple[str | int, ...], str]

# Suffixes that are looked for, in any case.  What a file really is, its first bytes decide when it is read.
IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".avif", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm"),
    }
)
# Images that nothing here decodes: named in the summary of skipped files with a cure.
UNSUPPORTED_SUFFIXES = frozenset(
    {
        *(".heic", ".heif", ".jp2", ".j2k", ".jpx", ".jxl", ".jxr", ".qoi", ".tga", ".pcx", ".ico", ".dib"),
        *(".pfm", ".pam", ".svg", ".pdf", ".psd", ".eps", ".exr", ".hdr", ".dcm", ".dds", ".fits"),
        *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2"),
    }
)
# Entries that operating systems, network drives and notebooks add, besides every name that begins with a dot.
_SYSTEM_NAMES = frozenset(
    {
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "__macosx", "lost+found", "icon\r"),
        *("$recycle.bin", "recycler", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"),
    }
)
_SHOWN = 5


@dataclass(slots=True)
class Listing:
    """What lies in one folder; names in natural order.

    Attributes:
        folders: names of folders, links to folders included.
        linked: those of `folders` that are links.
        files: names of everything else, links that lead nowhere excluded unless they have an image's suffix.
        system: names of entries that the system made.
        problems: what cannot be read, and why.
    """

    folders: list[str] = field(default_factory=list)
    linked: set[str] = field(default_factory=set)
    files: list[str] = field(default_factory=list)
    system: list[str] = field(default_factory=list)
    problems: list[ImageError] = field(default_factory=list)


@dataclass(slots=True)
class Found:
    """What lies below a folder, at any depth.

    Attributes:
        images: paths of image files, in natural order.  One that is a link to nothing is among them: reading it fails.
        skipped: suffix -> number of files with it, for files that are not images.
        system: name -> number of entries that the system made; what is inside those folders is not counted.
        repeated: links that are not followed, because they lead to a folder that is read anyway.
        problems: folders and links that cannot be read, and why.
    """

    images: list[Path] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    system: Counter[str] = field(default_factory=Counter)
    repeated: list[Path] = field(default_factory=list)
    problems: list[ImageError] = field(default_factory=list)

    def add(self, other: Found) -> None:
        """Append what was found below another folder."""
        self.images += other.images
        self.skipped += other.skipped
        self.system += other.system
        self.repeated += other.repeated
        self.problems += other.problems

    def notes(self) -> list[str]:
        """What was passed over, one line each: other files, system entries, repeated links."""
        lines = []
        if self.skipped:
            lines.append(f"{counted(self.skipped.total(), 'file')} skipped: {_by_name(self.skipped)}")
            unsupported = [suffix for suffix in self.skipped if suffix in UNSUPPORTED_SUFFIXES]
            if unsupported:
                lines[-1] += f"; convert {', '.join(sorted(unsupported)[:_SHOWN])} to PNG or JPEG to use those images"
        if self.system:
            entries = counted(self.system.total(), "hidden or system entry", "hidden or system entries")
            lines.append(f"{entries} skipped: {_by_name(self.system)}")
        if self.repeated:
            links = counted(len(self.repeated), "link to a folder", "links to folders")
            lines.append(f"{links} above or read already not followed: {shortened(self.repeated)}")
        return lines


@lru_cache(4096)  # names of folders come again with every file
def natural_key(name: str) -> NaturalKey:
    """Sort key that puts "img2" before "img10" and ignores case; names that differ have different keys."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts)), name


def is_image_name(name: str) -> bool:
    """Whether a file of this name is looked at."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - a Path each would double the time


def list_folder(folder: Path | str) -> Listing:
    """List one folder; what cannot be listed is among the problems."""
    found = Listing()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                _sort_in(entry, found)
    except OSError as error:
        found.problems.append(ImageError(f"{folder}: this folder cannot be read ({error.strerror})"))
    for names in (found.folders, found.files, found.system):
        names.sort(key=natural_key)
    return found


def find_images(folder: Path, leave_out: Path | None = None) -> Found:
    """Find the image files below `folder`.

    A folder is read once, however many links lead to it; links are followed after everything else, so that an image is
    named by its own path where it has one.

    Args:
        folder: may itself be a link, and have any name.
        leave_out: a folder whose content is not looked at.
    """
    found, root = Found(), str(folder)
    links: list[str] = []
    pending = [root]
    # A link to a parent of `folder` would lead back into it.
    seen = {_identity(place) for place in (leave_out, *folder.resolve().parents) if place is not None}
    while pending or links:
        is_link = not pending
        place = links.pop() if is_link else pending.pop()
        identity = _identity(place)
        if identity is not None and identity in seen:
            if is_link:
                found.repeated.append(Path(place))
            continue
        seen.add(identity)
        listing = list_folder(place)
        inside = [(name, os.path.join(place, name)) for name in listing.folders]  # noqa: PTH118
        pending += [path for name, path in inside if name not in listing.linked]
        links += [path for name, path in reversed(inside) if name in listing.linked]
        _collect(place, listing, found)
    parts = len(folder.parts)
    found.images.sort(key=lambda path: [natural_key(part) for part in path.parts[parts:]])
    found.repeated.sort()
    found.problems.sort(key=str)
    return found


def _collect(place: str, listing: Listing, found: Found) -> None:
    for name in listing.files:
        if is_image_name(name):
            found.images.append(Path(place, name))
        else:
            found.skipped[suffix_of(name)] += 1
    found.system.update("._*" if name.startswith("._") else name for name in listing.system)
    found.problems += listing.problems


def _sort_in(entry: os.DirEntry[str], found: Listing) -> None:
    if entry.name.startswith(".") or entry.name.casefold() in _SYSTEM_NAMES:
        found.system.append(entry.name)
    elif not entry.is_symlink():
        (found.folders if entry.is_dir() else found.files).append(entry.name)
    else:
        try:
            is_folder = stat.S_ISDIR(entry.stat().st_mode)
        except OSError as error:
            if is_image_name(entry.name):
                found.files.append(entry.name)
            else:
                found.problems.append(ImageError(f"{entry.path}: this link cannot be followed ({error.strerror})"))
            return
        if is_folder:
            found.linked.add(entry.name)
        (found.folders if is_folder else found.files).append(entry.name)


def _identity(place: Path | str) -> tuple[int, int] | None:
    """Device and inode: the same for a folder under all its names; None where it cannot be asked."""
    try:
        status = os.stat(place)  # noqa: PTH116
    except OSError:
        return None
    return status.st_dev, status.st_ino


def suffix_of(name: str) -> str:
    """How a file that is not an image is counted; longer endings are no kind of file."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    return suffix if 0 < len(suffix) <= 12 else "without suffix"


def shortened(names: Iterable[object]) -> str:
    """Up to five names, safe to print, and the number of the others."""
    every = [printable(name) for name in names]
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more


def _by_name(counts: Counter[str]) -> str:
    """The most frequent first: "12 .txt, 3 .heic"."""
    ordered = sorted(counts.items(), key=lambda found: (-found[1], found[0]))
    return shortened(f"{count:,} {name}" for name, count in ordered)


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: "1 file", "2,000 files"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
