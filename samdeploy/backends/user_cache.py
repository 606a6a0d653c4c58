"""What a runtime learned on this machine, kept in the user's cache folder so that the next time is faster.

One file per key.  A file states its whole key and its SHA-256: one that is damaged, or was made for another version,
GPU or driver, is not used.  Caches of runtimes hold native code, so a file that others may write is not used either.
Losing any of them costs time and nothing else; so no problem here is an error, each is a note.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from samdeploy.files import cache_folder, write_atomic

__all__ = ["cache_folder", "cache_path", "read_cache", "write_cache"]

_MAGIC = b"samdeploy-cache-1\n"


def cache_path(kind: str, key: Mapping[str, str]) -> Path:
    """Where the entry of this kind ("timing", "runtime") and key lies."""
    digest = hashlib.sha256(_header(key)).hexdigest()[:16]
    return cache_folder() / f"{kind}-{digest}.cache"


def read_cache(kind: str, key: Mapping[str, str]) -> tuple[bytes, str]:
    """The entry's bytes, or b"" with a note that says why there is one and it is not used."""
    try:
        path = cache_path(kind, key)
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
            return b"", f"{kind} cache ignored: others may write to {path}"
        content = path.read_bytes()
    except FileNotFoundError:
        return b"", ""
    except OSError as error:
        return b"", f"{kind} cache ignored: {error.filename} cannot be read ({error.strerror})"
    head = _MAGIC + _header(key)
    if not content.startswith(_MAGIC):
        return b"", f"{kind} cache ignored: {path} is not such a file"
    if not content.startswith(head):
        return b"", f"{kind} cache ignored: {path} was made for another version, GPU or driver"
    digest, data = content[len(head) : len(head) + 32], content[len(head) + 32 :]
    if hashlib.sha256(data).digest() != digest:
        return b"", f"{kind} cache ignored: {path} is damaged"
    return data, ""


def write_cache(kind: str, key: Mapping[str, str], data: bytes) -> str:
    """Keep the entry; the file is there whole or not at all.  Returns a note where that was not possible, else ""."""
    try:
        path = cache_path(kind, key)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Others may not write to it, whatever the umask: `read_cache` would not trust it.
        write_atomic(path, _MAGIC + _header(key) + hashlib.sha256(data).digest() + data, mode=0o600)
    except OSError as error:
        return f"{kind} cache not kept: {error.filename} cannot be written ({error.strerror})"
    return ""


def _header(key: Mapping[str, str]) -> bytes:
    return json.dumps(dict(sorted(key.items())), ensure_ascii=True).encode() + b"\n"
