"""One labelling: the parts that are to be made, and their making."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from samdeploy.bundle.names import MANIFEST
from samdeploy.classifier import Classifier
from samdeploy.errors import InputError
from samdeploy.files import json_bytes, write_atomic
from samdeploy.images.stream import processors
from samdeploy.label.fetch import Fetch
from samdeploy.label.folder import FORMAT, SUMMARY_FILE, VERSION, check_no_others, claimed, keep_settings
from samdeploy.label.inputs import NAMES_FILE, Input, open_input
from samdeploy.label.options import LabelOptions
from samdeploy.label.parts import is_sound, part_path, read_counts
from samdeploy.label.summary import Summary, summed
from samdeploy.label.worker import WHERE, Worker
from samdeploy.progress import progress_bar


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
        return labelling.ended(worker.first_error)


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
    with claimed(options) as known:
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
        keep_settings(options.out, self.settings)
        self._rows = given.count if options.limit is None else min(given.count, options.limit)
        self._parts = range(-(-self._rows // options.rows))
        check_no_others(options.out, self._parts)
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

    def ended(self, first_error: str = "") -> Summary:
        """Count what is there, and record it where that is everything."""
        seconds = time.perf_counter() - self._begin
        found = summed(self._options.out, self.settings, self._parts, self._rows, self.own, seconds, first_error)
        if found.whole:
            facts = {key: value for key, value in asdict(found).items() if key not in ("own", "seconds", "first_error")}
            write_atomic(self._options.out / SUMMARY_FILE, json_bytes({**facts, "settings": self.settings}))
        return found


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
