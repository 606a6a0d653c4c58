"""File names that stay inside their folder and are never given twice, whatever images and classes are called."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

# Of each part, in UTF-8: two parts and their endings fit into the 255 bytes of a file name.
_MAX_BYTES = 90


class UniqueNames:
    """Gives out plain names: letters, digits, "-" and "_" of any script, no dots, no two alike."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, text: str, fallback: str) -> str:
        """A name made from `text`; from `fallback` where nothing of it is left.

        Names that differ in nothing but case or Unicode form count as alike, as they do on some file systems.
        """
        plain = _plain(text) or fallback
        name, number = plain, 1
        while _key(name) in self._taken:
            number += 1
            name = f"{plain}-{number}"
        self._taken.add(_key(name))
        return name


def image_text(name: str) -> str:
    """What of an image's path its files are called after: folders and name, without the ending."""
    return str(PurePosixPath(name).with_suffix("")) if PurePosixPath(name).suffix else name


def _plain(text: str) -> str:
    kept = "".join(c if c.isalnum() or c in "-_" else "_" for c in unicodedata.normalize("NFC", text))
    return kept.strip("_").encode("utf-8")[:_MAX_BYTES].decode("utf-8", errors="ignore")


def _key(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()
