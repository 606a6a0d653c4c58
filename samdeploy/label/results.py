"""A folder that `samdeploy label` wrote, read again: block by block, in the order of the input."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from samdeploy.bundle import Bundle
from samdeploy.bundle.names import MANIFEST
from samdeploy.bundle.spec import MAX_BYTES
from samdeploy.errors import InputError
from samdeploy.files import read_json
from samdeploy.label.fetch import Fetch
from samdeploy.label.folder import FORMAT, SETTINGS_FILE, VERSION
from samdeploy.label.inputs import ChangedInput, Input, open_input
from samdeploy.label.parts import is_sound, part_path, read_counts

# Rows that are read at once.
BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Labels:
    """Results of a labelling that is complete.

    Attributes:
        settings: what the labels depend on, see `samdeploy.label.label.Labelling`.
        rows: of the input.
        parts: how many there are.
        counts: of all rows: "rows", "errors", "rejected", "written", and "label 3" for each class.
    """

    folder: Path
    settings: Mapping[str, Any]
    rows: int
    parts: int
    counts: Mapping[str, int]

    def blocks(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Rows that were written, in the order of the input, at most `BLOCK` at once, with these columns.

        Raises:
            InputError: a part is damaged.
        """
        for number in range(self.parts):
            path = part_path(self.folder, number)
            try:
                yield from pq.ParquetFile(path).iter_batches(BLOCK, columns=list(columns))
            except (pa.ArrowException, OSError) as error:
                raise InputError(f"{path}: damaged ({error}); remove it, and samdeploy label makes it again") from None

    def by_index(self, classes: int) -> list[int]:
        """Images that were given each class."""
        return [self.counts.get(f"label {index}", 0) for index in range(classes)]


def open_labels(folder: Path) -> Labels:
    """Look at the folder of a labelling, and at what each part says of its rows.

    Raises:
        InputError: it is none, another version wrote it, or parts are missing, damaged or of another labelling.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        found = f"no {SETTINGS_FILE} found" if folder.is_dir() else "no such folder"
        raise InputError(f"labels {folder}: {found}; name a folder that samdeploy label wrote")
    settings = read_json(path, f"labels {folder}")
    if settings.get("format") != FORMAT or settings.get("version") != VERSION:
        found = f"{settings.get('format')} version {settings.get('version')}"
        raise InputError(f"{path}: {found} found, {FORMAT} version {VERSION} expected; label again")
    if not _is_whole(settings):
        raise InputError(f"{path}: not as samdeploy label writes it; remove it, and run samdeploy label again")
    rows = settings["input"]["rows"]
    if settings["limit"] is not None:
        rows = min(rows, settings["limit"])
    parts = -(-rows // settings["rows"])
    missing = [number for number in range(parts) if not part_path(folder, number).is_file()]
    if missing:
        raise InputError(
            f"labels {folder}: {len(missing):,} of {parts:,} parts are missing, the first is "
            f"{part_path(folder, missing[0]).name}; run the same samdeploy label again, and it goes on"
        )
    counts: Counter[str] = Counter()
    for number in range(parts):
        start = number * settings["rows"]
        counts.update(_counts(folder, number, settings, range(start, min(start + settings["rows"], rows))))
    return Labels(folder, settings, rows, parts, counts)


def _is_whole(settings: Mapping[str, Any]) -> bool:
    """Whether all is there that is read of it."""
    match settings:
        case {
            "bundle": {"manifest_sha256": str()},
            "engine": {"backend": str(), "precision": str()},
            "input": {"kind": str(), "rows": int(total)},
            "rows": int(rows),
            "limit": None | int() as limit,
            "where": str(),
            "logits": str(),
        }:
            return total >= 0 and rows > 0 and (limit is None or limit >= 0)
    return False


def _counts(folder: Path, number: int, settings: Mapping[str, Any], rows: range) -> Mapping[str, int]:
    """Of a part that is as it was written, and answers for these rows.

    Raises:
        InputError: it is not.
    """
    path = part_path(folder, number)
    if is_sound(path):
        counts = read_counts(path, number, settings)
        places = pq.ParquetFile(path).read(["row"]).column("row").to_numpy()
        written = counts.get("written") if settings["where"] else len(rows)
        runs_on = (np.diff(places, prepend=rows.start - 1, append=rows.stop) > 0).all()
        if counts.get("rows") == len(rows) and counts.get("written", 0) == len(places) == written and runs_on:
            return counts
    raise InputError(f"{path}: was cut off or changed; run samdeploy label again")


def labels_of(bundle: Bundle, folder: Path) -> Labels:
    """Labels that a bundle made.

    Raises:
        InputError: another one did; or as `open_labels` does.
    """
    labels = open_labels(folder)
    expected = hashlib.sha256((bundle.root / MANIFEST).read_bytes()).hexdigest()
    if (found := labels.settings["bundle"]["manifest_sha256"]) != expected:
        raise InputError(
            f"labels {folder}: of a bundle whose manifest has SHA-256 {found[:12]}..., {bundle.root} has "
            f"{expected[:12]}...; name that bundle, or label again"
        )
    return labels


def input_of(labels: Labels, text: str, column: str, timeout: float) -> Input:
    """The input again, so that its images can be read.

    Args:
        text, column: as for `open_input`.
        timeout: seconds in which an address must answer.

    Raises:
        InputError: it is another one.
    """
    with suppress(ChangedInput):
        given = open_input(text, labels.folder, column, Fetch(timeout, MAX_BYTES), known=True)
        if json.loads(json.dumps(given.identity)) == labels.settings["input"]:
            return given
    raise InputError(f"{text}: not the images labelled in {labels.folder}; give the INPUT of samdeploy label")


def check_whole(labels: Labels, why: str) -> None:
    """Refuse labels of which some rows were not written.

    Raises:
        InputError: `--where` chose some.
    """
    if labels.settings["where"]:
        raise InputError(
            f"labels {labels.folder}: written with --where {labels.settings['where']!r}, and {why} needs every row; "
            "label without --where"
        )
