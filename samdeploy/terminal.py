"""Names of files and classes, safe to print."""

from __future__ import annotations


def printable(text: object) -> str:
    r"""`text` with its control, bidirectional and other invisible characters as escapes, for terminals and logs.

    >>> printable("new\nline.jpg")
    'new\\nline.jpg'
    >>> printable("cat\u202egpj.exe")
    'cat\\u202egpj.exe'
    """
    text = str(text)
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of a name that is not UTF-8, as Python's surrogateescape stores it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character if character.isprintable() else character.encode("unicode_escape").decode()
