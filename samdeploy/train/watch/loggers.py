"""Where else a training's figures go, beside history.csv and curves.png: one file for each."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

from samdeploy.train.recipe.recipe import TrainingSection
from samdeploy.train.watch.history import EpochRow, GateRow

# Key of [training] that asks for it -> module, imported late.
LOGGERS = {"tensorboard": "samdeploy.train.watch.tensorboard", "mlflow": "samdeploy.train.watch.mlflow"}


class Logger(Protocol):
    """A module with these functions."""

    @staticmethod
    def require() -> None:
        """Find out before the training, not after its first epoch.

        Raises:
            BackendUnavailable: its package or server is not there.
        """

    @staticmethod
    def write(
        run: Path, rows: Sequence[EpochRow], gate_rows: Sequence[GateRow], final: Mapping[str, float] | None = None
    ) -> None:
        """Bring the record to these epochs, of which some may be there already.

        Args:
            run: its folder; recipe.toml is in it.
            rows, gate_rows: of all epochs so far; every column is a figure, those of stages as "gate_mean/layer1".
            final: figures of the test, once the training is complete.
        """


def loggers_of(training: TrainingSection) -> list[Logger]:
    """Those that a recipe asks for."""
    return [cast(Logger, importlib.import_module(LOGGERS[name])) for name in LOGGERS if getattr(training, name)]


def figures_of(row: EpochRow, gate_rows: Sequence[GateRow]) -> dict[str, float]:
    """All figures of an epoch by name."""
    tables: dict[str, EpochRow | GateRow] = {"": row}
    tables |= {f"/{gates.stage}": gates for gates in gate_rows if gates.epoch == row.epoch}
    return {
        f"{name}{suffix}": value
        for suffix, table in tables.items()
        for name in table.__slots__
        if name not in ("epoch", "stage") and (value := getattr(table, name)) is not None
    }
