"""Names of files and classes, safe to print."""

from __future__ import annotations

import os


def printable(text: object) -> str:
    r"""`text` with its control, bidirectional and other invisible characters as escapes, for terminals and logs.

    >>> printable("new\nline.jpg")
    'new\\nline.jpg'
    >>> printable("cat\u202egpj.exe")
    'cat\\u202egpj.exe'
    """
    text = str(text)
    return text if text.isprintable() else "".join(map(_escaped, text))


def is_misread(text: str) -> bool:
    """Whether only this locale's encoding makes `text` unprintable: its bytes are printable UTF-8."""
    try:
        return not text.isprintable() and os.fsencode(text).decode("utf-8").isprintable()
    except UnicodeError:
        return False


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of a name that is not UTF-8, as Python's surrogateescape stores it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character if character.isprintable() else character.encode("unicode_escape").decode()
