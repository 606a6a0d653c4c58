"""One labelling: the folder of its results, the parts that are to be made, and what they add up to."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from samdeploy.bundle.names import MANIFEST
from samdeploy.classifier import Classifier
from samdeploy.errors import InputError
from samdeploy.files import json_bytes, read_json, write_atomic
from samdeploy.images.stream import processors
from samdeploy.images.walk import counted
from samdeploy.label.fetch import Fetch
from samdeploy.label.inputs import NAMES_FILE, Input, open_input
from samdeploy.label.options import LabelOptions
from samdeploy.label.parts import is_sound, part_path, read_counts
from samdeploy.label.worker import WHERE, Worker
from samdeploy.progress import progress_bar

SETTINGS_FILE, SUMMARY_FILE = "_label.json", "_summary.json"
FORMAT, VERSION = "samdeploy-labels", 3
_FORMER = ".former-"  # a folder with what --force replaces, until the new labelling has begun


@dataclass(frozen=True, slots=True)
class Summary:
    """Of all parts that are there.

    Attributes:
        rows: of the input.
        parts: how many there are, of how many.
        labels: images by class, and `errors` those without one; together `done`.
        rejected: of those with a label.
        written: rows of the parts; fewer than `done` with --where.
        seconds: of this worker, in which it labelled `own` rows.
    """

    rows: int
    parts: tuple[int, int]
    done: int
    labels: Mapping[str, int]
    errors: int
    rejected: int
    written: int
    own: int
    seconds: float

    @property
    def whole(self) -> bool:
        """Whether every row of the input is answered for."""
        return self.parts[0] == self.parts[1] and self.done == self.rows == sum(self.labels.values()) + self.errors


def label(classifier: Classifier, options: LabelOptions) -> Summary:
    """Label what is not labelled yet, as far as it is this worker's; the summary is of all that is there.

    Raises:
        InputError: another input, bundle or option than the folder's; or another process is at it.
        BackendUnavailable: the engine failed.
    """
    with opened(options, classifier.max_bytes) as given:
        worker = Worker(classifier, options, given)
        labelling = Labelling(options, given, engine_facts(classifier))
        with progress_bar("labels", labelling.own) as step:
            for number in labelling.to_do:
                worker.work(number, labelling.rows_of(number), labelling.settings, step)
        return labelling.ended()


@contextmanager
def opened(options: LabelOptions, max_bytes: int) -> Iterator[Input]:
    """The input, while the folder of the results is this process's; with `force` it is emptied.

    Args:
        max_bytes: an image behind an address that is longer is refused.

    Raises:
        InputError: the options, the folder or the input are wrong; or another process is at it.
    """
    if options.where and not WHERE.fullmatch(options.where):
        raise InputError(f"--where: {options.where!r} found; give rejected, error or 'probability < 0.6'")
    _check_folders(options)
    with _alone(options):
        begun = (options.out / SETTINGS_FILE).is_file()
        with _set_aside(options.out) if options.force and begun else nullcontext():
            known = begun and not options.force
            fetch = Fetch(options.timeout, max_bytes)
            given = open_input(options.input, options.out, options.column, fetch, known=known)
            if not given.count:
                raise InputError(f"{options.input}: no images found")
            yield given


def engine_facts(classifier: Classifier) -> dict[str, Any]:
    """What the labels depend on of the engine; equal on all machines that share a labelling."""
    session = classifier.session
    manifest = (classifier.bundle.root / MANIFEST).read_bytes()
    return {
        "bundle": {"manifest_sha256": hashlib.sha256(manifest).hexdigest(), "arch": classifier.bundle.spec.arch},
        "engine": {"backend": session.backend, "precision": session.precision, "device": session.device},
        "versions": _versions(
            "samdeploy", "pillow", "numpy", {"pytorch": "torch"}.get(session.backend, session.backend)
        ),
    }


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


class Labelling:
    """The parts of one labelling, from the settings in the folder to the summary.

    Attributes:
        settings: what the bytes of the parts depend on.
        to_do: numbers of the parts that are this worker's, and not there or damaged.
        own: rows of them.
    """

    def __init__(self, options: LabelOptions, given: Input, facts: Mapping[str, Any]) -> None:
        """
        Args:
            facts: from `engine_facts`.

        Raises:
            InputError: the folder has other settings, or a part of another labelling.
        """
        self._options, self._begin = options, time.perf_counter()
        self.settings: Mapping[str, Any] = {
            "format": FORMAT, "version": VERSION, **facts, "input": dict(given.identity),
            "rows": options.rows, "batch": options.batch, "limit": options.limit, "where": options.where,
            "logits": options.logits, "features": options.features,
        }  # fmt: skip
        _claim(options.out, self.settings)
        for former in options.out.glob(f"{_FORMER}*"):
            shutil.rmtree(former)
        self._rows = given.count if options.limit is None else min(given.count, options.limit)
        self._parts = range(-(-self._rows // options.rows))
        _check_no_others(options.out, self._parts)
        mine = [number for number in self._parts if number % options.shard[1] == options.shard[0] - 1]
        self.to_do = _missing(options.out, mine, self.settings)
        self.own = sum(len(self.rows_of(number)) for number in self.to_do)
        self.tidy(self.to_do)

    def rows_of(self, number: int) -> range:
        """The rows of the input that a part answers for."""
        start = number * self._options.rows
        return range(start, min(start + self._options.rows, self._rows))

    def tidy(self, parts: Sequence[int]) -> None:
        """What a killed worker left of these parts goes; so does a summary that they make untrue."""
        names = {f".{part_path(self._options.out, number).name}" for number in parts}
        if self._options.shard == (1, 1):  # else another process may be writing it
            names.add(f".{NAMES_FILE}")
        for left in self._options.out.glob(".*-*"):
            if left.name.rpartition("-")[0] in names:
                left.unlink(missing_ok=True)
        if parts:
            (self._options.out / SUMMARY_FILE).unlink(missing_ok=True)

    def ended(self) -> Summary:
        """Count what is there, and record it where that is everything."""
        seconds = time.perf_counter() - self._begin
        found = _summary(self._options.out, self.settings, self._parts, self._rows, self.own, seconds)
        if found.whole:
            facts = {key: value for key, value in asdict(found).items() if key not in ("own", "seconds")}
            write_atomic(self._options.out / SUMMARY_FILE, json_bytes({**facts, "settings": self.settings}))
        return found


def _check_no_others(folder: Path, parts: Sequence[int]) -> None:
    """
    Raises:
        InputError: the folder has a part that is not of this labelling; who reads the folder would read it, too.
    """
    own = {part_path(folder, number).name for number in parts}
    if others := sorted(path.name for path in folder.glob("part-*.parquet") if path.name not in own):
        raise InputError(f"{folder}: {others[0]} is no part of this labelling; remove it, and label again")


def _missing(folder: Path, parts: Sequence[int], settings: Mapping[str, Any]) -> list[int]:
    """Those of the parts that are not there, or damaged.

    Raises:
        InputError: one was written with other settings, or is another part under this name.
    """
    paths = [part_path(folder, number) for number in parts]
    with ThreadPoolExecutor(processors()) as pool:  # hashing is most of it, and lets others work
        is_done = list(pool.map(lambda path: path.is_file() and is_sound(path), paths))
    for number, path, is_whole in zip(parts, paths, is_done, strict=True):
        if is_whole:
            read_counts(path, number, settings)
        elif path.is_file():
            print(f"{path}: cut off or changed; its rows are labelled again", file=sys.stderr)
    return [number for number, is_whole in zip(parts, is_done, strict=True) if not is_whole]


def _check_folders(options: LabelOptions) -> None:
    given = Path(options.input)
    if given.is_dir() and (given / SETTINGS_FILE).is_file():
        raise InputError(f"{given}: results of a labelling found, images expected")
    if given.is_dir() and options.out.exists() and given.samefile(options.out):
        raise InputError(f"--out {options.out}: the folder of the images; name another")
    if options.force and options.shard[1] > 1:
        raise InputError("--force: not with --shard, where it would remove what the others did; name another folder")
    if options.out.exists() and not (options.out / SETTINGS_FILE).is_file() and any(options.out.glob("part-*.parquet")):
        raise InputError(f"--out {options.out}: holds part-*.parquet of something else; name another folder")
    if options.out.exists() and not options.out.is_dir():
        raise InputError(f"--out {options.out}: a file found, a folder expected")


def _claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Record the settings, or compare them with those that are there.

    Raises:
        InputError: they differ.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        write_atomic(path, json_bytes(settings))
        return
    known = read_json(path, f"labels {folder}")
    settings = json.loads(json.dumps(settings))
    other = [key for key in {**known, **settings} if known.get(key) != settings.get(key)]
    if other:
        if known.get("format") != FORMAT:
            raise InputError(f"{path}: not of a labelling; name another folder")
        shown = "; ".join(f"{key} was {_short(known.get(key))}, is {_short(settings.get(key))}" for key in other)
        raise InputError(f"{folder}: begun with other settings ({shown}); name another folder, or --force begins anew")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) < 80 else f"{text[:77]}..."


@contextmanager
def _set_aside(folder: Path) -> Iterator[None]:
    """The results in `folder` out of the way; back again where the block fails before `Labelling` deletes them."""
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
    options.out.mkdir(parents=True, exist_ok=True)
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
        raise InputError(f"labels {options.out}: another process writes this shard; wait for its end") from None
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


def _summary(
    folder: Path, settings: Mapping[str, Any], parts: Sequence[int], rows: int, own: int, seconds: float
) -> Summary:
    total: Counter[str] = Counter()
    there = [number for number in parts if part_path(folder, number).is_file()]
    for number in there:
        total.update(read_counts(part_path(folder, number), number, settings))
    labels = {key.removeprefix("label "): count for key, count in total.items() if key.startswith("label ")}
    return Summary(
        rows, (len(there), len(parts)), total["rows"], labels, total["errors"], total["rejected"],
        total["written"], own, seconds,
    )  # fmt: skip


def say(found: Summary, classes: Sequence[str]) -> None:
    """Print a summary: on standard error, a few lines."""
    print(
        f"{found.done:,} of {counted(found.rows, 'row')} in {found.parts[0]} of {counted(found.parts[1], 'part')}: "
        f"{found.done - found.errors:,} labelled, {counted(found.errors, 'error')}, {found.rejected:,} rejected; "
        f"{found.own:,} now, in {found.seconds:.1f} s"
        + (f"; {found.written:,} written" if found.written < found.done else ""),
        file=sys.stderr,
    )
    most = sorted(found.labels.items(), key=lambda item: -item[1])[:5]
    if most:
        shares = ", ".join(
            f"{classes[int(index)]} {100 * count / (found.done - found.errors):.1f} %" for index, count in most
        )
        print(f"  most frequent of {len(found.labels)} classes found: {shares}", file=sys.stderr)
    if found.errors:
        print("  what failed is in the column error", file=sys.stderr)
