"""Writing and reading files so that a crash or a hostile neighbour cannot do harm."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from samdeploy.errors import BundleError


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path` whole or not at all: temporary file beside it, fsync, rename."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp's 0600 would lock out everyone the file is given to
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def json_bytes(value: object) -> bytes:
    """Indented UTF-8 JSON with a final newline; NaN is refused, since other languages cannot read it."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        BundleError: missing, no JSON, no object, or a key that stands twice.
    """
    try:
        value = json.loads(path.read_bytes(), object_pairs_hook=_unique_keys)
    except FileNotFoundError:
        raise BundleError(f"{what}: {path} is missing; is this the right folder?") from None
    except OSError as error:
        raise BundleError(f"{what}: {path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{what}: {path} is not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise BundleError(f"{what}: {path} holds a {type(value).__name__}, an object was expected")
    return value


def contained_file(root: Path, relative: str, what: str) -> Path:
    """`root / relative`, proven to be a plain file inside `root` that no link leads to or through.

    Raises:
        BundleError: the path is absolute, leaves `root`, is written unusually, or a link, folder or device
            stands on it; or the file is missing.
    """
    pure = PurePosixPath(relative)
    plain = relative == str(pure) and "\\" not in relative and "\0" not in relative
    if not relative or pure.is_absolute() or ".." in pure.parts or not plain or relative == ".":
        raise BundleError(f"{what}: path {relative!r} leaves the folder or is not plain; expected one like 'a/b.onnx'")
    path = root
    for part in pure.parts:
        path = path / part
        if path.is_symlink():
            raise BundleError(f"{what}: {relative!r} is or passes a symbolic link; only plain files are opened")
    try:
        status = path.lstat()
    except OSError:
        raise BundleError(f"{what}: {relative!r} is missing; the folder is incomplete, export it again") from None
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{what}: {relative!r} is not a plain file")
    if status.st_nlink > 1:
        raise BundleError(f"{what}: {relative!r} has {status.st_nlink} hard links; copy the folder without links")
    return path


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} stands twice")
        found[key] = value
    return found
