"""What was found in a large file, kept in the cache until the file changes, so that it is read through only once.

Losing an entry costs time and nothing else: one that is damaged, or cannot be written, is found out anew.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samdeploy.data.cache import NOTES_SUFFIX, images_folder
from samdeploy.data.dataset import file_stamps
from samdeploy.files import write_atomic

Arrays = Mapping[str, NDArray[Any]]
_DIGEST_BYTES = hashlib.sha256().digest_size


def noted(path: Path, what: str, find: Callable[[], Arrays]) -> Arrays:
    """`find()`, or what it gave for this file before.

    Args:
        path: the file that `find` reads.
        what: names what is found, and whatever else it depends on.
        find: gives arrays by name; what it raises is not kept.
    """
    stamp = file_stamps([str(path)]).tobytes()
    name = hashlib.sha256("\0".join([str(path.absolute()), what]).encode("utf-8", "surrogateescape")).hexdigest()
    try:
        entry = images_folder() / f"{name[:20]}{NOTES_SUFFIX}"
    except FileNotFoundError:  # no cache without a home
        return find()
    with suppress(OSError):
        if (found := _read(entry.read_bytes(), stamp)) is not None:
            with suppress(OSError):
                os.utime(entry)  # it is in use
            return found
    found = find()
    if file_stamps([str(path)]).tobytes() == stamp:  # else it changed meanwhile
        with suppress(OSError):
            entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(entry, _written(found, stamp))
    return found


def _written(arrays: Mapping[str, Any], stamp: bytes) -> bytes:
    """A .npz file without pickle, behind the SHA-256 of it and of the file's stamp."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    return hashlib.sha256(stamp + content.getbuffer()).digest() + content.getbuffer()


def _read(content: bytes, stamp: bytes) -> Arrays | None:
    digest, rest = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(stamp + rest).digest() != digest:
        return None
    with np.load(io.BytesIO(rest), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
