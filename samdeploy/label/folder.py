"""The folder of a labelling's results: which process has it, with which settings, and what --force replaces."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from samdeploy.bundle.names import MANIFEST, RUN_FILE
from samdeploy.errors import InputError
from samdeploy.files import json_bytes, read_json, write_atomic
from samdeploy.label.inputs import NAMES_FILE
from samdeploy.label.options import LabelOptions
from samdeploy.label.parts import part_path

SETTINGS_FILE, SUMMARY_FILE = "_label.json", "_summary.json"
FORMAT, VERSION = "samdeploy-labels", 3
_FORMER = ".former-"  # a folder with what --force replaces, until the new labelling has begun


@contextmanager
def claimed(options: LabelOptions) -> Iterator[bool]:
    """The folder is this process's, and made; yields whether a labelling in it goes on.  With `force` none does, and
    what was there comes back if the block ends before `keep_settings`.

    Raises:
        InputError: the folder cannot be the one of these results, or another process is at it.
    """
    _check_folders(options)
    with _alone(options):
        begun = (options.out / SETTINGS_FILE).is_file()
        with _set_aside(options.out) if options.force and begun else nullcontext():
            yield begun and not options.force


def keep_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Record the settings, or compare them with those that are there; what `force` had set aside goes.

    Raises:
        InputError: they differ.
    """
    path = folder / SETTINGS_FILE
    if path.is_file():
        _check_same(path, settings)
    else:
        write_atomic(path, json_bytes(settings))
    for former in folder.glob(f"{_FORMER}*"):
        shutil.rmtree(former)


def _check_same(path: Path, settings: Mapping[str, Any]) -> None:
    known = read_json(path, f"labels {path.parent}")
    if known.get("format") != FORMAT:
        raise InputError(f"{path}: samdeploy label did not write it; name another folder")
    was, now = _flat(known), _flat(json.loads(json.dumps(settings)))
    if other := [key for key in {**was, **now} if was.get(key) != now.get(key)]:
        shown = "; ".join(f"{key}: {_short(was.get(key))} -> {_short(now.get(key))}" for key in other)
        raise InputError(
            f"{path.parent}: begun with other settings ({shown}); name another folder, or --force begins anew"
        )


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """One level: the keys of an object inside follow its own, `bundle arch`."""
    inner = {
        f"{name} {key}": value
        for name, group in settings.items()
        if isinstance(group, dict)
        for key, value in group.items()
    }
    return {name: value for name, value in settings.items() if not isinstance(value, dict)} | inner


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) < 40 else f"{text[:17]}..."


def check_no_others(folder: Path, parts: Sequence[int]) -> None:
    """
    Raises:
        InputError: the folder has a part that is not of this labelling; who reads the folder would read it, too.
    """
    own = {part_path(folder, number).name for number in parts}
    if others := sorted(path.name for path in folder.glob("part-*.parquet") if path.name not in own):
        raise InputError(f"{folder}: {others[0]} is no part of this labelling; remove it, and label again")


def _check_folders(options: LabelOptions) -> None:
    given = Path(options.input)
    if given.is_dir() and (given / SETTINGS_FILE).is_file():
        raise InputError(f"{given}: results of a labelling found, images expected")
    if given.is_dir() and options.out.exists() and given.samefile(options.out):
        raise InputError(f"--out {options.out}: the folder of the images; name another")
    if any((folder / MANIFEST).is_file() for folder in (options.out, *options.out.absolute().parents)):
        raise InputError(f"--out {options.out}: inside a bundle, which nothing may change; name another folder")
    if (options.out / RUN_FILE).is_file():
        raise InputError(f"--out {options.out}: holds {RUN_FILE} of a run; name another folder")
    if options.force and options.shard[1] > 1:
        raise InputError("--force: not with --shard: it would remove the other shards' results; name another folder")
    if options.out.exists() and not (options.out / SETTINGS_FILE).is_file() and any(options.out.glob("part-*.parquet")):
        raise InputError(f"--out {options.out}: holds part-*.parquet of something else; name another folder")
    if options.out.exists() and not options.out.is_dir():
        raise InputError(f"--out {options.out}: a file found, a folder expected")


@contextmanager
def _set_aside(folder: Path) -> Iterator[None]:
    """The results in `folder` out of the way; back again where the block fails before `keep_settings` deletes them."""
    former = Path(tempfile.mkdtemp(prefix=_FORMER, dir=folder))
    results = [path for path in folder.iterdir() if _is_result(path.name)]
    for path in results:
        path.rename(former / path.name)
    try:
        yield
    except BaseException:
        if former.exists():
            for path in results:
                (former / path.name).replace(path)
            former.rmdir()
        raise


def _is_result(name: str) -> bool:
    return name in (SETTINGS_FILE, SUMMARY_FILE, NAMES_FILE) or bool(re.fullmatch(r"part-\d{6}\.parquet", name))


@contextmanager
def _alone(options: LabelOptions) -> Iterator[None]:
    """One process for each shard; makes the folder of the results.  The kernel unlocks at any end.

    Raises:
        InputError: another process has it.
    """
    number, count = options.shard
    is_new = not options.out.exists()
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: {options.out} cannot be made ({error.strerror}); name another folder") from None
    path = options.out / f".lock-{number}-of-{count}"
    handles = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)]
    try:
        fcntl.flock(handles[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(handles[0]), path.stat()):  # removed and made again meanwhile
            raise BlockingIOError
        # All shards at once and one of them exclude each other; two shards do not.
        for other in options.out.glob(".lock-*" if count == 1 else ".lock-1-of-1"):
            if other != path:
                handles.append(os.open(other, os.O_RDWR | os.O_CLOEXEC))
                fcntl.flock(handles[-1], fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):
        raise InputError(f"labels {options.out}: another process labels into it; wait for its end") from None
    else:
        with _nothing_left(options, path, is_new):
            yield
    finally:
        for handle in handles:
            os.close(handle)


@contextmanager
def _nothing_left(options: LabelOptions, lock: Path, is_new: bool) -> Iterator[None]:
    """Where no labelling begins, for example because there are no images, remove what was written."""
    names = options.out / NAMES_FILE
    had_names = names.exists()
    try:
        yield
    except BaseException:
        # Other shards may be at work on the same names.
        if options.shard == (1, 1) and not (options.out / SETTINGS_FILE).exists():
            for path in (lock,) if had_names else (lock, names):
                path.unlink(missing_ok=True)
            if is_new:
                with suppress(OSError):  # something else lies in it
                    options.out.rmdir()
        raise
