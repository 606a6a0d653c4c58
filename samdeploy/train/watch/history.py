"""The tables of a training, history.csv and gates.csv: rows per finished epoch."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
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
        val_balanced_accuracy: mean recall of the classes, in percent.
        val_macro_f1: mean F1 of the classes, 0 to 1.
        images_per_s: training images per second, without validation.
        seconds: the whole epoch, with validation.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_top1: float
    val_loss: float
    val_top1: float
    val_balanced_accuracy: float
    val_macro_f1: float
    images_per_s: float
    seconds: float

    def score(self, monitor: str) -> float:
        """What `training.monitor` names; higher is better."""
        return -self.val_loss if monitor == "loss" else float(getattr(self, f"val_{monitor}"))


@dataclass(frozen=True, slots=True)
class GateRow:
    """One stage after one epoch; the fields are the columns of gates.csv.

    Attributes:
        epoch: counted from 1.
        stage: of the network, such as "layer1".
        gate_mean, gate_sd, gate_min, gate_max: of the factors that the stage's gates multiply channels by, over images,
            channels and modules; None in a network without gates.
        largest: largest absolute activation in the stage.
        headroom_bits: powers of two between that and FP16's end; negative where it is beyond.
    """

    epoch: int
    stage: str
    gate_mean: float | None
    gate_sd: float | None
    gate_min: float | None
    gate_max: float | None
    largest: float
    headroom_bits: float


def write_table(path: Path, rows: Sequence[EpochRow] | Sequence[GateRow]) -> None:
    """The rows as a CSV file, atomically, with six digits of each number; without rows there is no file."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in dataclasses.fields(rows[0]))
    for row in rows:
        writer.writerow(f"{value:.6g}" if isinstance(value, float) else value for value in dataclasses.astuple(row))
    write_atomic(path, text.getvalue().encode())


def by_stage(rows: Sequence[GateRow]) -> dict[str, list[GateRow]]:
    """Stage -> its rows."""
    stages: dict[str, list[GateRow]] = {}
    for row in rows:
        stages.setdefault(row.stage, []).append(row)
    return stages
