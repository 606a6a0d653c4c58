"""What an image may be given as, and the encoded bytes behind it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from samdeploy.errors import ImageError
from samdeploy.images.formats import BEGINNING, Reader, reader_of
from samdeploy.images.refused import RefusedImage

_LONGEST_PATH = 4096  # bytes, on Linux


def encoded(source: str | Path | bytes, max_bytes: int, name: str = "") -> tuple[Reader, bytes]:
    """The content of a file, or the bytes themselves, and how they are read.

    Its first bytes are recognised, and its length is compared, before the rest is read.

    Args:
        name: what to call it; "": its path.

    Raises:
        ImageError: no path, no plain file, empty, or longer than `max_bytes`.
        RefusedImage: of a format that is not read.
        OSError: what the file system says.
    """
    if isinstance(source, bytes):
        _check_length(len(source), max_bytes, name or name_of(source))
        try:
            return reader_of(source[:BEGINNING]), source
        except RefusedImage as error:
            raise RefusedImage(f"{error}{_hint(source)}") from None
    _check_path(source)
    # Without O_NONBLOCK a pipe that nobody fills would be waited for.
    file = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(file)
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{name or source}: is a folder, an image was expected")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{name or source}: is no plain file, an image was expected")
        _check_length(status.st_size, max_bytes, name or str(source))
        reader = reader_of(os.pread(file, BEGINNING, 0))
        content = os.read(file, status.st_size)
        while len(content) < status.st_size and (more := os.read(file, status.st_size - len(content))):
            content += more  # a read that a signal cut short
        return reader, content
    finally:
        os.close(file)


def name_of(source: object) -> str:
    """What a message calls it."""
    return str(source) if isinstance(source, str | Path) else "image"


def _check_length(length: int, max_bytes: int, name: str) -> None:
    if not length:
        raise ImageError(f"{name}: the file is empty; expected an image")
    if length > max_bytes:
        raise ImageError(
            f"{name}: {length:,} bytes are too many, at most {max_bytes:,} are read; "
            "only Classifier.open(max_bytes=) and serve --max-bytes change that"
        )


def _check_path(source: str | Path) -> None:
    if not str(source):
        raise ImageError("'': is no path, an image was expected")
    if "\0" in str(source):
        raise ImageError(f"{str(source)!r}: no path has a zero byte in it, an image was expected")
    try:
        os.fsencode(source)
    except UnicodeEncodeError:  # as ASCII: what cannot be a file's name cannot be printed either
        raise ImageError(f"{str(source)!a}: no file can have this name, an image was expected") from None


def _hint(content: bytes) -> str:
    if len(content) < _LONGEST_PATH and b"\0" not in content and os.path.exists(content):  # noqa: PTH110
        return "; bytes are taken as the content of a file, and these are the name of one: os.fsdecode() it first"
    return ""
