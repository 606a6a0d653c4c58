"""`curves.png` beside the history: what the training did so far, drawn anew after epochs, and at the end.

A plot is no reason to lose a training: whatever goes wrong here is said once, and the training goes on.
"""

from __future__ import annotations

import io
import itertools
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdeploy.files import write_atomic
from samdeploy.train.watch.history import EpochRow, GateRow, by_stage
from samdeploy.train.watch.loggers import Logger

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES_FILE = "curves.png"
# Below so many bits of head-room the export has to rescale, or a layer has to stay FP32.
_TIGHT_BITS = 3.0

# Okabe and Ito's palette, which people who see colours differently can tell apart.
_TRAIN, _VAL, _OTHER = "#0072B2", "#D55E00", "#009E73"
_STAGES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")

# Epochs of a second must not spend it on plots of themselves.
_MAX_SHARE = 0.05
_FIRST_COST = 0.5  # seconds; what drawing takes, as long as it was not measured

_said: set[str] = set()


class LiveCurves:
    """The curves of one training, and whatever else its recipe has figures written to."""

    def __init__(self, run: Path, loggers: Sequence[Logger]) -> None:
        self._run, self._loggers = run, loggers
        self._last, self._cost = time.monotonic(), _FIRST_COST

    def after_epoch(self, rows: Sequence[EpochRow], gate_rows: Sequence[GateRow], *, last: bool) -> None:
        """Draw, after the last epoch always, before it where that took less than 5 % of the time; never raises."""
        start = time.monotonic()
        if not last and self._cost > _MAX_SHARE * (start - self._last):
            return
        draw_curves(self._run, rows, gate_rows)
        _log(self._loggers, self._run, rows, gate_rows)
        self._last = time.monotonic()
        self._cost = self._last - start

    def after_test(self, rows: Sequence[EpochRow], gate_rows: Sequence[GateRow], final: Mapping[str, float]) -> None:
        """Log the figures of the test, too; never raises."""
        _log(self._loggers, self._run, rows, gate_rows, final)


def draw_curves(run: Path, rows: Sequence[EpochRow], gate_rows: Sequence[GateRow]) -> None:
    """Draw `run/curves.png`; never raises.

    Takes about 0.4 s of one core.  Without matplotlib (the extra `plots`) nothing is drawn.
    """
    try:
        write_atomic(run / CURVES_FILE, curves_png(rows, by_stage(gate_rows), run.name))
    except ImportError as error:
        _say("import", f"no curves are drawn ({error.name} is missing: pip install 'samdeploy[plots]')")
    except Exception as error:
        kind = type(error).__name__
        _say(kind, f"{run / CURVES_FILE} could not be drawn ({kind}: {error}); the training goes on")


def _log(loggers: Sequence[Logger], run: Path, *figures: Any) -> None:
    for logger in loggers:
        try:
            logger.write(run, *figures)
        except Exception as error:
            kind = type(error).__name__
            name = logger.__name__.rpartition(".")[2]  # type: ignore[attr-defined]
            _say(f"{name} {kind}", f"{run}: {name} could not be written ({kind}: {error}); the training goes on")


def curves_png(history: Sequence[EpochRow], stages: dict[str, list[GateRow]], title: str) -> bytes:
    """The curves as PNG; `title` names the run."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 8, "axes.titlesize": 9}):
        # Not through pyplot: its figures are global, and a training may run in any thread.
        figure = Figure(figsize=(11, 5.6), dpi=100, layout="constrained")
        (loss, top1, rate), (gates, headroom, speed) = figure.subplots(2, 3)
        _lines(loss, history, "loss (nats)", {"train_loss": _TRAIN, "val_loss": _VAL})
        _lines(top1, history, "top-1 (%)", {"train_top1": _TRAIN, "val_top1": _VAL})
        _mark_best(top1, history)
        _lines(rate, history, "learning rate of the epoch's last step", {"learning_rate": _OTHER})
        _lines(speed, history, "training images per second", {"images_per_s": _OTHER})
        _draw_gates(gates, stages)
        _draw_headroom(headroom, stages)
        for axes in (loss, top1, rate, gates, headroom, speed):
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.25, lw=0.5)
            axes.margins(x=0.02)
        for axes in (gates, headroom, speed):
            axes.set_xlabel("epoch")
        speed.set_ylim(bottom=0)
        plural = "s" if len(history) > 1 else ""
        figure.suptitle(f"{title}: {len(history)} epoch{plural}", fontsize=9, x=0.01, ha="left")
        content = io.BytesIO()
        figure.savefig(content, format="png")
    return content.getvalue()


def _lines(axes: Axes, rows: Sequence[EpochRow], title: str, columns: dict[str, str]) -> None:
    for column, colour in columns.items():
        points = [(row.epoch, getattr(row, column)) for row in rows if math.isfinite(getattr(row, column))]
        if points:
            epochs, values = zip(*points, strict=True)
            # A single epoch is no line.
            marker: dict[str, Any] = {"marker": "o", "markersize": 3} if len(points) < 30 else {}
            axes.plot(epochs, values, color=colour, lw=1.3, label=column.partition("_")[0], **marker)
    axes.set_title(title, loc="left")
    if len(columns) > 1 and axes.lines:
        axes.legend(frameon=False)


def _mark_best(axes: Axes, rows: Sequence[EpochRow]) -> None:
    best = max(rows, key=lambda row: (row.val_top1, -row.val_loss))
    axes.axvline(best.epoch, color=_VAL, lw=0.8, ls="--")
    axes.set_title(f"top-1 (%); dashed: best validation, {best.val_top1:.2f} %", loc="left")


def _draw_gates(axes: Axes, stages: dict[str, list[GateRow]]) -> None:
    axes.set_title("gates: mean, band of one standard deviation", loc="left")
    for (stage, rows), colour in zip(stages.items(), itertools.cycle(_STAGES), strict=False):
        known = [(row.epoch, row.gate_mean, row.gate_sd) for row in rows if None not in (row.gate_mean, row.gate_sd)]
        if not known:
            continue
        epochs, mean, sd = zip(*known, strict=True)
        axes.plot(epochs, mean, color=colour, lw=1.3, label=stage, marker="o", markersize=2)
        low, high = ([m + sign * s for m, s in zip(mean, sd, strict=True)] for sign in (-1, 1))
        axes.fill_between(epochs, low, high, color=colour, alpha=0.15, lw=0)
    if axes.lines:
        axes.legend(frameon=False, ncols=2)
    else:
        axes.text(0.5, 0.5, "no attention, or not measured", ha="center", transform=axes.transAxes)


def _draw_headroom(axes: Axes, stages: dict[str, list[GateRow]]) -> None:
    axes.set_title(f"FP16 head-room (bits); below {_TIGHT_BITS:g} the export has work", loc="left")
    for (stage, rows), colour in zip(stages.items(), itertools.cycle(_STAGES), strict=False):
        epochs, bits = [row.epoch for row in rows], [row.headroom_bits for row in rows]
        axes.plot(epochs, bits, color=colour, lw=1.3, label=stage, marker="o", markersize=2)
    if axes.lines:
        axes.axhspan(min(0.0, axes.get_ylim()[0]), _TIGHT_BITS, color=_VAL, alpha=0.12, lw=0)
        axes.legend(frameon=False, ncols=2)
    else:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)


def _say(kind: str, text: str) -> None:
    if kind not in _said:
        _said.add(kind)
        print(text, file=sys.stderr)
