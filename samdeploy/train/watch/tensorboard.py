"""The history as TensorBoard's event file, beside history.csv in the run: `tensorboard --logdir runs`.

The extra `tensorboard`.  The file is written anew after every epoch, so that a resumed training, whose rows may be
fewer than before, leaves no second line behind.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from samdeploy.errors import BackendUnavailable
from samdeploy.train.watch.history import EpochRow, GateRow

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


def write_events(run: Path, rows: Sequence[EpochRow], gate_rows: Sequence[GateRow]) -> None:
    """Write `run/events.out.tfevents.samdeploy`: every column of the two tables as a scalar over the epochs.

    Raises:
        OSError: the run cannot be written to.
    """
    from torch.utils.tensorboard import SummaryWriter

    start = time.time() - sum(row.seconds for row in rows)
    with tempfile.TemporaryDirectory(dir=run, prefix=".events-") as folder:
        with SummaryWriter(folder) as writer:
            for row in rows:
                start += row.seconds
                tables: dict[str, EpochRow | GateRow] = {"": row}
                tables |= {f"/{gates.stage}": gates for gates in gate_rows if gates.epoch == row.epoch}
                for suffix, table in tables.items():
                    for name, value in dataclasses.asdict(table).items():
                        if name not in ("epoch", "stage") and value is not None:
                            writer.add_scalar(f"{name}{suffix}", value, row.epoch, walltime=start)
        (written,) = Path(folder).iterdir()
        written.replace(run / EVENTS_FILE)
