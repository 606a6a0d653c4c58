"""A folder that is filled beside the one it replaces, and takes its place at one moment.

Whatever ends the process, SIGKILL and power included, the folder is afterwards the old one or the new one, whole.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from samdeploy.errors import InputError
from samdeploy.files import temporary_name

# Of Linux's renameat2(2): the two names change places in one step; and "relative paths are of the working directory".
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place when the block ends well, and vanishes otherwise.

    What a killed process left beside `target` is removed first.

    Raises:
        InputError: another process is at it.
    """
    with _only_one(target) as alone:
        # Without a lock they may be another process's, at work.
        for left in target.parent.glob(f".{target.name}-*") if alone else ():
            _put_back(left, target)
        stage = temporary_name(target)
        try:
            stage.mkdir()
            yield stage
            gone = sorted({path.name for path in target.glob("*")} - {path.name for path in stage.iterdir()})
            _replace(stage, target)
            if gone:
                print(f"gone with the earlier {target.name}: {', '.join(map(repr, gone))}", file=sys.stderr)
        finally:
            _put_back(stage.with_name(f"{stage.name}-old"), target)
            shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def _only_one(target: Path) -> Iterator[bool]:
    """Whether this process is alone, as far as can be known; the kernel unlocks at any end.

    Two at once would each take over the engines that the other has not seen.
    """
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"run {target.parent}: another export is writing its {target.name}; wait for its end, then repeat this"
            ) from None
        except OSError:  # a file system without locks
            yield False
        else:
            yield True
    finally:
        os.close(folder)


def _replace(stage: Path, target: Path) -> None:
    """Let `target` be what `stage` is; what was there is afterwards at `stage`, or gone."""
    if not target.exists():
        stage.rename(target)
        return
    try:
        _exchange(stage, target)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise
        # A file system that exchanges no names (NFS): two steps, and `_put_back` for what dies between them.
        old = stage.with_name(f"{stage.name}-old")
        target.rename(old)
        stage.rename(target)


def _exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise OSError(errno.ENOSYS, "no renameat2")
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))


def _put_back(left: Path, target: Path) -> None:
    """Remove what is left beside `target`; a former `target` goes back to its place, if that is empty."""
    with suppress(OSError):
        if left.name.endswith("-old") and left.exists() and not target.exists():
            left.rename(target)
    shutil.rmtree(left, ignore_errors=True)
