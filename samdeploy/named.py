"""Pictures that a user named: what becomes of those that cannot be read.

One rule for every command that works picture by picture.  What can be read is done; each of the others is named with
the reason on standard error, and the exit code is 1.  Where not one could be read the input is wrong, and it is 2.
"""

from __future__ import annotations

import sys
from pathlib import Path

from samdeploy.errors import ImageError
from samdeploy.preprocess import IMAGE_SUFFIXES


def shown(text: object) -> str:
    r"""`text` for a terminal and for tools that read lines: what is not printable in a file's name is escaped.

    >>> shown("new\nline.jpg")
    'new\\nline.jpg'
    """

    def escaped(character: str) -> str:
        if "\udc80" <= character <= "\udcff":  # a byte of a name that is no UTF-8, as Python's surrogateescape has it
            return f"\\x{ord(character) - 0xDC00:02x}"
        return character if character.isprintable() else character.encode("unicode_escape").decode()

    return "".join(map(escaped, str(text)))


class Unread:
    """Counts the pictures that could not be read, and says why as they come."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, error: ImageError) -> None:
        """One more, said in a line on standard error."""
        self.count += 1
        print(f"samdeploy: {shown(error)}", file=sys.stderr)

    def none_of(self, total: int) -> bool:
        """Once all are through: whether every one of the `total` pictures was read; says how many were not.

        Raises:
            ImageError: not one was read.
        """
        text = f"{self.count} of {total} pictures could not be read"
        if self.count and self.count == total:
            raise ImageError(text)
        if self.count:
            print(f"samdeploy: {text}", file=sys.stderr)
        return not self.count


def no_pictures(folder: Path) -> ImageError:
    """What is said of a folder without pictures; it counts as one that cannot be read."""
    return ImageError(f"{folder}: no pictures in this folder; expected files ending in {', '.join(IMAGE_SUFFIXES)}")
