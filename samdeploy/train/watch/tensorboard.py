"""The history as TensorBoard's event file, beside history.csv in the run: `tensorboard --logdir runs`.

The extra `tensorboard`.  The file is written anew from history.csv and gates.csv after every epoch, so that a resumed
training, whose rows may be fewer than before, leaves no second line behind.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from samdeploy.bundle.names import HISTORY_FILE
from samdeploy.errors import BackendUnavailable
from samdeploy.train.watch.history import Row, read_columns, read_stages

EVENTS_FILE = "events.out.tfevents.samdeploy"


def require_tensorboard() -> None:
    """Find out before the training, not after its first epoch.

    Raises:
        BackendUnavailable: the package is not installed.
    """
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise BackendUnavailable(
            "training.tensorboard = true, but the package tensorboard is not installed: "
            "pip install 'samdeploy[tensorboard]', or --set training.tensorboard=false"
        ) from None


def write_events(run: Path) -> None:
    """Write `run/events.out.tfevents.samdeploy`: every column of the two tables as a scalar over the epochs.

    Raises:
        OSError: the run cannot be written to.
    """
    from torch.utils.tensorboard import SummaryWriter

    history, stages = read_columns(run / HISTORY_FILE), read_stages(run)
    start = (run / HISTORY_FILE).stat().st_mtime - sum(row.get("seconds", 0.0) for row in history)
    with tempfile.TemporaryDirectory(dir=run, prefix=".events-") as folder:
        with SummaryWriter(folder) as writer:
            for row in history:
                start += row.get("seconds", 0.0)
                tables = {"": row, **{f"/{stage}": _of_epoch(rows, row["epoch"]) for stage, rows in stages.items()}}
                for suffix, table in tables.items():
                    for name, value in table.items():
                        if name != "epoch":
                            writer.add_scalar(f"{name}{suffix}", value, int(row["epoch"]), walltime=start)
        (written,) = Path(folder).iterdir()
        written.replace(run / EVENTS_FILE)


def _of_epoch(rows: list[Row], epoch: float) -> Row:
    return next((row for row in rows if row["epoch"] == epoch), {})
