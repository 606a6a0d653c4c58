"""Confident labels as a table that `samdeploy train` reads."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samdeploy.errors import InputError
from samdeploy.files import temporary_name
from samdeploy.images.walk import counted
from samdeploy.label.containers import Parquets, Tars
from samdeploy.label.inputs import NAMES_FILE
from samdeploy.label.parts import utf8
from samdeploy.label.results import Labels
from samdeploy.progress import progress_bar

_COLUMNS = ("uri", "label", "probability", "rejected", "digest")
# What `utf8` makes of a byte that is none.
_NOT_UTF8 = re.compile(r"\\udc[89a-f][0-9a-f]")


@dataclass(slots=True)
class Chosen:
    """What became of the rows: written ones by class, the others by reason."""

    written: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        total = sum(self.written.values())
        others = "".join(f", {count:,} {why}" for why, count in self.left_out.items())
        return f"{counted(total, 'image')} of {counted(len(self.written), 'class', 'classes')} written{others}"


def write_training_table(labels: Labels, base: Path, least: float, path: Path) -> Chosen:
    """Write path, label and probability of the labels to train on; the file is written whole or not at all.

    Errors, rejected answers and those below `least` are left out, of copies of an image all but the first, and names
    that are not UTF-8.

    Args:
        base: folder that relative names begin at.
        least: probability, in [0, 1].
        path: the table, a .csv.

    Raises:
        InputError: the images are no files, are not there or are others; or not one is left.
    """
    kind = labels.settings["input"]["kind"]
    if kind in (Tars.kind, Parquets.kind):
        raise InputError(f"labels {labels.folder}: of images inside {kind} files; unpack them, and label the folder")
    if not 0 <= least <= 1:
        raise InputError(f"--min-probability: {least:g} found, 0 to 1 expected")
    _check_sizes(labels, base)
    found = Chosen()
    temporary = temporary_name(path)
    try:
        with temporary.open("x", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)  # ends lines with \r\n: it quotes a name with either
            writer.writerow(("path", "label", "probability"))
            for row in _chosen(labels, base, least, found):
                image = Path(os.path.normpath(base.absolute() / row["uri"]))  # links stay as they are named
                if "://" in row["uri"] or not image.is_file():
                    raise InputError(
                        f"{row['uri']}: no file in {base.absolute()}; give the INPUT of samdeploy label: samdeploy "
                        "data INPUT --from-labels DIR --out FILE.csv"
                    )
                writer.writerow((image, row["label"], f"{row['probability']:.6f}"))
                found.written[row["label"]] += 1
        if not found.written:
            raise InputError(f"labels {labels.folder}: {found}; no label is left to train on")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return found


def _check_sizes(labels: Labels, base: Path) -> None:
    """Refuse other images of the same names, by the sizes that were recorded."""
    path, expected = labels.folder / NAMES_FILE, labels.settings["input"].get("sha256")
    if not path.is_file():
        raise InputError(f"{path}: missing; run the same samdeploy label again")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != expected:
            raise InputError(f"{path}: was changed; remove it, and run the same samdeploy label again")
        file.seek(0)
        for name, size in map(json.loads, itertools.islice(file, labels.rows)):
            image = base / name
            if size is not None and image.is_file() and (now := image.stat().st_size) != size:
                raise InputError(
                    f"{utf8(str(image))}: {now:,} bytes found, {size:,} when it was labelled; name the images that "
                    "were labelled, or label again"
                )


def _chosen(labels: Labels, base: Path, least: float, found: Chosen) -> Iterator[dict[str, Any]]:
    seen: set[bytes] = set()
    with progress_bar("labels", labels.rows) as advance:
        for block in labels.blocks(_COLUMNS):
            for row in block.to_pylist():
                why = _why_not(row, base, least) or ("copies" if row["digest"] in seen else "")
                if why:
                    found.left_out[why] += 1
                    continue
                seen.add(row["digest"])
                yield row
            advance(len(block), "")


def _why_not(row: dict[str, Any], base: Path, least: float) -> str:
    if row["label"] is None:
        return "without a label"
    if row["rejected"]:
        return "rejected"
    if _NOT_UTF8.search(row["uri"]) and not (base / row["uri"]).is_file():
        return "whose names are not UTF-8"
    return f"below {least:g}" if row["probability"] < least else ""
