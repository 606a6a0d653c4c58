"""A new directory for a run."""

from __future__ import annotations

import os
from pathlib import Path

from samdeploy.errors import InputError

_ELSEWHERE = "name another place: --runs DIR"


def check_runs_root(runs_root: Path) -> None:
    """Whether a run can be put below `runs_root`, which need not exist yet; nothing is made.

    Raises:
        InputError: it is a file, or may not be written to.
    """
    existing = next(path for path in (runs_root, *runs_root.parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f"runs folder {runs_root}: cannot be written to ({existing} is a file); {_ELSEWHERE}")
    if os.access(existing, os.W_OK | os.X_OK):
        return
    is_read_only = os.statvfs(existing).f_flag & os.ST_RDONLY
    raise InputError(
        f"runs folder {runs_root}: cannot be written to ({existing}: "
        f"{'the file system is read-only' if is_read_only else 'permission denied'}); {_ELSEWHERE}"
    )


def new_run_folder(runs_root: Path, name: str) -> Path:
    """A directory that nothing was in before: `name`, or `name`-2, -3, ... where that exists.

    Raises:
        InputError: it cannot be made.
    """
    number = 1
    try:
        runs_root.mkdir(parents=True, exist_ok=True)
        while True:
            path = runs_root / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir()
            except FileExistsError:
                number += 1
            else:
                return path
    except OSError as error:
        raise InputError(f"runs folder {runs_root}: cannot be written to ({error.strerror}); {_ELSEWHERE}") from None
