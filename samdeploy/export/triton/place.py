"""Put models into a repository, and lose nothing that somebody else keeps there.

The last line of an exported `config.pbtxt` holds the SHA-256 of all files of its model: only a model whose files still
have it is replaced.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from samdeploy.bundle.names import RUN_FILE
from samdeploy.errors import InputError
from samdeploy.files import temporary_name
from samdeploy.runs.locate import is_bundle_or_run

CONFIG = "config.pbtxt"
LABELS = "labels.txt"  # of the first of a bundle's models alone
_MARK = b"# Exported by samdeploy; SHA-256 of these files: "


def model_names(name: str) -> tuple[str, str, str, str]:
    """What the four models of a bundle are called; `name` is the first."""
    return name, f"{name}_decode", f"{name}_images", f"{name}_python"


def check_repository(repository: Path, name: str, bundle: Path) -> None:
    """Refuse to write there, before anything is exported or written.

    Args:
        name: of the bundle's first model.
        bundle: its folder.

    Raises:
        InputError: the repository is a file, a run or a bundle, or lies in `bundle` or its run; or under a model's name
            lies something else than an export of a bundle of this name that nobody has changed since.
    """
    if repository.exists() and not repository.is_dir():
        raise InputError(f"--triton: {repository} is a file; name a folder")
    root, place = bundle.resolve(), repository.resolve()
    own = root.parent if (root.parent / RUN_FILE).is_file() else root
    if own in (place, *place.parents) or is_bundle_or_run(place):
        raise InputError(f"--triton: {repository} is, or lies in, a run or a bundle; name a folder outside of it")
    for model in model_names(name):
        target = repository / model
        if not target.exists() and not target.is_symlink():
            continue
        if not _is_export(target):
            raise InputError(
                f"--triton: samdeploy did not export {target}, or it was changed since; move it away, or name "
                "another folder"
            )
        # X_decode may be the first model of a bundle X_decode, or the second of a bundle X.
        if (target / LABELS).exists() != (model == name):
            raise InputError(
                f"--triton: {target} is a model of another bundle; name another folder, or rename this bundle's "
                f"folder, which its models are called after: {name}"
            )


def seal(folder: Path) -> None:
    """Write the last line of a model's configuration."""
    config = folder / CONFIG
    config.write_bytes(_sealed(folder, config.read_bytes()))


def _is_export(folder: Path) -> bool:
    try:
        content = (folder / CONFIG).read_bytes()
    except OSError:
        return False
    body, mark, _ = content.rpartition(_MARK)
    return bool(mark) and not folder.is_symlink() and content == _sealed(folder, body)


def _sealed(folder: Path, config: bytes) -> bytes:
    """`config` with its last line."""
    whole = hashlib.sha256(hashlib.sha256(config).digest())
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        is_folder = path.is_dir() and not path.is_symlink()
        if str(name) == CONFIG or is_folder or "__pycache__" in name.parts:  # Triton's Python backend makes that
            continue
        whole.update(b"\0" + os.fsencode(name) + b"\0")
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    return config + _MARK + whole.hexdigest().encode() + b"\n"


def replace(models: Sequence[str], place: Path, repository: Path) -> None:
    """Move all models from `place` into the repository, or none; earlier exports are removed at the end."""
    before = {model: temporary_name(repository / model) for model in models}
    try:
        for model, old in before.items():
            target = repository / model
            if target.exists():
                target.rename(old)
            (place / model).rename(target)
    except BaseException:
        for model, old in before.items():
            if not (place / model).exists():
                (repository / model).rename(place / model)
            if old.exists():
                old.rename(repository / model)
        raise
    for old in before.values():
        with suppress(FileNotFoundError):
            shutil.rmtree(old)
