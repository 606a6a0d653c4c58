"""The history as TensorBoard's event file, beside history.csv in the run: `tensorboard --logdir runs`.

The extra `tensorboard`.  The file is written anew after every epoch, so that a resumed training, whose rows may be
fewer than before, leaves no second line behind.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from samdeploy.errors import BackendUnavailable
from samdeploy.train.watch.history import EpochRow, GateRow
from samdeploy.train.watch.loggers import figures_of

EVENTS_FILE = "events.out.tfevents.samdeploy"


def require() -> None:
    """See `samdeploy.train.watch.loggers.Logger`."""
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise BackendUnavailable(
            "training.tensorboard = true, but the package tensorboard is not installed: "
            "pip install 'samdeploy[tensorboard]', or --set training.tensorboard=false"
        ) from None


def write(
    run: Path, rows: Sequence[EpochRow], gate_rows: Sequence[GateRow], final: Mapping[str, float] | None = None
) -> None:
    """Write `run/events.out.tfevents.samdeploy`; see `samdeploy.train.watch.loggers.Logger`.

    Raises:
        OSError: the run cannot be written to.
    """
    from torch.utils.tensorboard import SummaryWriter

    start = time.time() - sum(row.seconds for row in rows)
    with tempfile.TemporaryDirectory(dir=run, prefix=".events-") as folder:
        with SummaryWriter(folder) as writer:
            for row in rows:
                start += row.seconds
                for name, value in figures_of(row, gate_rows).items():
                    writer.add_scalar(name, value, row.epoch, walltime=start)
            for name, value in (final or {}).items():
                writer.add_scalar(name, value, rows[-1].epoch)
        (written,) = Path(folder).iterdir()
        written.replace(run / EVENTS_FILE)
