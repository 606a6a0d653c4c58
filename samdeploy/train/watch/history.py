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


def _cells(row: EpochRow) -> Iterator[str | int]:
    return (f"{value:.6g}" if isinstance(value, float) else value for value in dataclasses.astuple(row))
