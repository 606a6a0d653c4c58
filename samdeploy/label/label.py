"""One worker: the parts that are its own and not there yet, one after the other."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from samdeploy.arrays import UInt8Array
from samdeploy.bundle.names import MANIFEST
from samdeploy.classifier import Classifier
from samdeploy.data.duplicates.image_hashes import digests_of
from samdeploy.errors import ImageError, InputError
from samdeploy.files import json_bytes, read_json, write_atomic
from samdeploy.images.decode import prepare_sized
from samdeploy.images.stream import Stream
from samdeploy.images.walk import counted
from samdeploy.label.containers import Row
from samdeploy.label.fetch import Fetch
from samdeploy.label.inputs import NAMES_FILE, Input, open_input
from samdeploy.label.parts import TOP, Labelled, part_path, read_counts, schema, write_part
from samdeploy.progress import progress_bar
from samdeploy.ranking import Prediction, rank

SETTINGS_FILE, SUMMARY_FILE = "_label.json", "_summary.json"
FORMAT, VERSION = "samdeploy-labels", 2
_WHERE = re.compile(r"rejected|error|probability *< *(0?\.\d+|0|1(?:\.0+)?)")


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """
    Attributes:
        input: see `open_input`.
        out: folder of the results.
        rows: of the input in one part.
        batch: images per call of the engine.
        threads: that read, decode and resize; None: one per processor.
        shard: (number from 1, how many): this worker takes every so manieth part.
        limit: rows of the input, from the first; None: all.
        where: which rows are written: "" all, "rejected", "error" or "probability < 0.6".
        logits: "", "float16" or "float32".
        column: see `open_input`.
        timeout: seconds in which an address must answer.
        force: begin anew what was begun with other settings.
    """

    input: str
    out: Path
    rows: int = 10_000
    batch: int = 16
    threads: int | None = None
    shard: tuple[int, int] = (1, 1)
    limit: int | None = None
    where: str = ""
    logits: str = ""
    column: str = ""
    timeout: float = 30.0
    force: bool = False


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
    if options.where and not _WHERE.fullmatch(options.where):
        raise InputError(f"--where: {options.where!r} found, rejected, error or 'probability < 0.6' expected")
    begin = time.perf_counter()
    _check_folders(options)
    options.out.mkdir(parents=True, exist_ok=True)
    with _alone(options):
        if options.force and (options.out / SETTINGS_FILE).is_file():
            _clear(options.out)
        known = (options.out / SETTINGS_FILE).is_file()
        fetch = Fetch(options.timeout, classifier.max_bytes)
        given = open_input(options.input, options.out, options.column, fetch, known=known)
        settings = _settings(classifier, options, given)
        _claim(options.out, settings)
        if not given.count:
            raise InputError(f"{options.input}: no images found")
        rows = given.count if options.limit is None else min(given.count, options.limit)
        worker = _Worker(classifier, options, given, settings)
        parts = range(-(-rows // options.rows))
        mine = [number for number in parts if number % options.shard[1] == options.shard[0] - 1]
        to_do = [number for number in mine if not worker.has(number)]
        _tidy(options.out, to_do)
        own = sum(min(options.rows, rows - number * options.rows) for number in to_do)
        with progress_bar("labels", own) as step:
            for number in to_do:
                start = number * options.rows
                worker.work(number, start, min(start + options.rows, rows), step)
        found = _summary(options.out, settings, parts, rows, own, time.perf_counter() - begin)
        if found.whole:
            facts = {key: value for key, value in asdict(found).items() if key not in ("own", "seconds")}
            write_atomic(options.out / SUMMARY_FILE, json_bytes({**facts, "settings": settings}))
        return found


def _tidy(folder: Path, to_do: Sequence[int]) -> None:
    """What a killed worker left of these parts goes; so does a summary that they make untrue."""
    for number in to_do:
        for left in folder.glob(f".{part_path(folder, number).name}-*"):
            left.unlink(missing_ok=True)
    if to_do:
        (folder / SUMMARY_FILE).unlink(missing_ok=True)


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


class _Worker:
    def __init__(
        self, classifier: Classifier, options: LabelOptions, given: Input, settings: Mapping[str, Any]
    ) -> None:
        self._classifier, self._options, self._given, self._settings = classifier, options, given, settings
        self._form = schema(len(classifier.classes), options.logits)
        self._keeps = _keeps(options.where)

    def has(self, number: int) -> bool:
        """Whether a part is there, with the same settings."""
        path = part_path(self._options.out, number)
        return path.is_file() and bool(read_counts(path, number, self._settings))

    def work(self, number: int, start: int, stop: int, step: Callable[[int, str], None]) -> None:
        """Make one part."""
        kept: list[Labelled] = []
        counts: Counter[str] = Counter()
        begin = time.perf_counter()
        for done, one in enumerate(self._labelled(start, stop), 1):
            counts["rows"] += 1
            counts["errors" if one.error else f"label {one.index}"] += 1
            counts["rejected"] += bool(one.rejected)
            counts["written"] += self._keeps(one)
            if self._keeps(one):
                kept.append(one)
            step(1, f"{done / (time.perf_counter() - begin):,.0f} images/s  {counts['errors']:,} errors")
        write_part(part_path(self._options.out, number), number, kept, self._form, self._settings, counts)

    def _labelled(self, start: int, stop: int) -> Iterator[Labelled]:
        classifier, options = self._classifier, self._options
        bundle, precision = classifier.bundle, classifier.session.precision
        size = bundle.spec.preprocessing
        stream = Stream[Prediction](
            _prepare(classifier),
            lambda pixels: rank(classifier.session.run(pixels), bundle, precision, TOP),
            (size.height, size.width, 3),
            batch=options.batch,
            threads=options.threads,
        )
        under_way: list[_Source] = []

        def sources() -> Iterator[Any]:
            for row in self._given.rows(start, stop):
                under_way.append(_Source(row))
                yield under_way[-1]

        for place, answer in enumerate(stream.answers(sources())):
            source = under_way[place]
            under_way[place] = None  # type: ignore[call-overload]  # its bytes
            row, uri = start + place, source.row.uri
            if isinstance(answer, ImageError):
                yield Labelled(row, uri, source.error or _why(answer), source.size, digest=source.digest)
                continue
            yield Labelled(
                row, uri, "", source.size, answer.label, answer.index, answer.probability, answer.rejected, answer.top,
                answer.logits if options.logits else None, source.digest,
            )  # fmt: skip


class _Source:
    """A row on its way through the stream; what is found out about it stays here."""

    __slots__ = ("digest", "error", "row", "size")

    def __init__(self, row: Row) -> None:
        self.row, self.error, self.size, self.digest = row, "", (0, 0), b""


def _prepare(classifier: Classifier) -> Callable[[Any], UInt8Array]:
    limits = {"max_pixels": classifier.max_pixels, "max_bytes": classifier.max_bytes}
    preprocessing = classifier.bundle.spec.preprocessing

    def prepare(source: _Source) -> UInt8Array:
        given: Path | bytes = b""
        try:
            given = source.row.read()
            pixels, source.size = prepare_sized(given, preprocessing, **limits)
            source.digest = digests_of(pixels[None]).tobytes()
        except ImageError as error:
            # The same text on every machine, wherever its images lie.
            text, uri = str(error), source.row.uri
            source.error = (
                text.replace(str(given), uri)
                if isinstance(given, Path)
                else re.sub(r"^image(?=:)", lambda _: uri, text)
            )
            raise
        return pixels

    return prepare


def _why(error: ImageError) -> str:
    """Without the stream's name for the image."""
    return re.sub(r"^image \d+ of the stream: ", "", str(error))


def _keeps(where: str) -> Callable[[Labelled], bool]:
    if where == "rejected":
        return lambda one: bool(one.rejected)
    if where == "error":
        return lambda one: bool(one.error)
    if where:
        limit = float(where.partition("<")[2])
        return lambda one: one.probability is not None and one.probability < limit
    return lambda one: True


def _settings(classifier: Classifier, options: LabelOptions, given: Input) -> dict[str, Any]:
    """What the bytes of the parts depend on."""
    session = classifier.session
    manifest = (classifier.bundle.root / MANIFEST).read_bytes()
    return {
        "format": FORMAT, "version": VERSION,
        "bundle": {"manifest_sha256": hashlib.sha256(manifest).hexdigest(), "arch": classifier.bundle.spec.arch},
        "engine": {"backend": session.backend, "precision": session.precision, "device": session.device},
        "input": dict(given.identity),
        "rows": options.rows, "batch": options.batch, "limit": options.limit, "where": options.where,
        "logits": options.logits,
    }  # fmt: skip


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
        raise InputError(
            f"labels {folder}: begun with other settings ({shown}); name another folder, or --force begins anew"
        )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) < 80 else f"{text[:77]}..."


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name in (SETTINGS_FILE, SUMMARY_FILE, NAMES_FILE) or re.fullmatch(r"part-\d{6}\.parquet", path.name):
            path.unlink()


@contextmanager
def _alone(options: LabelOptions) -> Iterator[None]:
    """One process for each shard; the kernel unlocks at any end.

    Raises:
        InputError: another process has it.
    """
    number, count = options.shard
    path = options.out / f".lock-{number}-of-{count}"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"labels {options.out}: another process writes this shard; wait for its end") from None
    else:
        yield
    finally:
        os.close(handle)


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
        print(f"  {shares}", file=sys.stderr)
