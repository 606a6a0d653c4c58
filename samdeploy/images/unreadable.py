"""Images that a user named on the command line, and the report of those that cannot be read.

One rule for every command that works image by image: unreadable images and folders are named with the reason on
standard error and the others are done; the exit code is 1, or 2 if nothing could be read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from samdeploy.errors import ImageError, InputError
from samdeploy.images.walk import find_images
from samdeploy.terminal import printable


@dataclass(frozen=True, slots=True)
class NamedImage:
    """One image to read.

    Attributes:
        path: of the file, or of what stands in its place.
        name: path below the folder that was named, or the file's own name.
        problem: why there is nothing to read.
    """

    path: Path
    name: str
    problem: ImageError | None = None


def named_images(paths: Sequence[Path], leave_out: Path | None = None) -> list[NamedImage]:
    """The images among and below `paths`, in their order; says on standard error which files are skipped.

    A folder without images counts as one image that cannot be read.

    Args:
        paths: images and folders.
        leave_out: a folder whose images are not wanted: the command writes there.

    Raises:
        InputError: one of `paths` is `leave_out`.
        ImageError: `paths` are folders without images.
    """
    images = [image for path in paths for image in _expand(path, leave_out)]
    problems = [str(image.problem) for image in images if image.problem is not None]
    if problems and len(problems) == len(images):  # known before an engine is opened
        raise ImageError("; ".join(problems))
    return images


def _expand(path: Path, leave_out: Path | None) -> Iterator[NamedImage]:
    if not os.path.isdir(path):  # noqa: PTH112 - a Path raises for a name that no file can have
        yield NamedImage(path, path.name)
        return
    if leave_out is not None and leave_out.resolve() == path.resolve():
        raise InputError(f"--out: {leave_out} is the folder of the images themselves; name another")
    found = find_images(path, leave_out)
    problems = list(found.problems)
    if not found.images and not problems:
        passed = f" ({'; '.join(found.notes())})" if found.notes() else ""
        problems.append(ImageError(f"{path}: no images in this folder{passed}"))
    elif found.notes():
        print(*(f"{printable(path)}: {note}" for note in found.notes()), sep="\n", file=sys.stderr)
    for image in found.images:
        yield NamedImage(image, image.relative_to(path).as_posix())
    for problem in problems:
        yield NamedImage(path, path.name, problem)


class Unread:
    """Counts the images that could not be read, and says why as they come."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, error: ImageError) -> None:
        """Count one more, and print its line on standard error."""
        self.count += 1
        print(f"samdeploy: {printable(error)}", file=sys.stderr)

    def none_of(self, total: int) -> bool:
        """Whether every one of the `total` images was read; prints how many were not.

        Raises:
            ImageError: not one was read.
        """
        text = f"{self.count} of {total} images could not be read"
        if self.count and self.count == total:
            raise ImageError(text)
        if self.count:
            print(f"samdeploy: {text}", file=sys.stderr)
        return not self.count
