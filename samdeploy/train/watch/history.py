"""The history table: one row per finished epoch."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from samdeploy.files import write_atomic


@dataclass(frozen=True, slots=True)
class EpochRow:
    """One line of history.csv; the fields are its columns.

    Attributes:
        epoch: counted from 1.
        learning_rate: of the epoch's last step.
        train_loss: mean over the epoch's images, as trained on (with dropout, label smoothing, changing weights).
        train_top1: over the same forward passes, in percent.
        val_loss: cross entropy, mean over all validation images, weights as they are after the epoch.
        val_top1: over all validation images, in percent.
        images_per_s: training images per second, without validation.
        seconds: the whole epoch, with validation.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_top1: float
    val_loss: float
    val_top1: float
    images_per_s: float
    seconds: float


Row = dict[str, float]

_GATES_FILE = "gates.csv"
COLUMNS = tuple(field.name for field in dataclasses.fields(EpochRow))


def append_history(path: Path, row: EpochRow) -> None:
    """Add `row` to the CSV file at `path`; a new file gets the header first."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerow(_cells(row))


def write_history(path: Path, rows: Sequence[EpochRow]) -> None:
    """The whole CSV file anew, atomically; without rows there is none."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_cells(row) for row in rows)
    write_atomic(path, text.getvalue().encode())


def read_columns(path: Path) -> list[Row]:
    """A CSV file of numbers as one dictionary per row; empty cells are left out, cells of text too."""
    rows: list[Row] = []
    if not path.is_file():
        return rows
    with path.open(newline="", encoding="utf-8-sig") as file:
        for line in csv.DictReader(file):
            row = {}
            for key, text in line.items():
                try:
                    row[key] = float(text)
                except (TypeError, ValueError):
                    continue
            rows.append(row)
    return rows


def read_stages(run: Path) -> dict[str, list[Row]]:
    """The rows of gates.csv by stage, in the order in which the stages come."""
    path = run / _GATES_FILE
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        names = [line.get("stage") or "" for line in csv.DictReader(file)]
    stages: dict[str, list[Row]] = {}
    for name, row in zip(names, read_columns(path), strict=True):
        stages.setdefault(name, []).append(row)
    return stages


def _cells(row: EpochRow) -> Iterator[str | int]:
    return (f"{value:.6g}" if isinstance(value, float) else value for value in dataclasses.astuple(row))
