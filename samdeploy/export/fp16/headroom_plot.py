"""The head-room map as an image.  Imports matplotlib: the extra `plots`."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from samdeploy.export.graphs import Headroom

# Okabe and Ito's palette, which people who see colours differently can tell apart.
_BEFORE, _AFTER, _LIMIT = "#999999", "#0072B2", "#D55E00"


def plot_headroom(headroom: Headroom, path: Path) -> None:
    """Write a PNG: the head-room of every tensor in bits over the depth of the network, before and after rescaling.

    Args:
        headroom: from an export.
        path: of the PNG.
    """
    rows = [row for row in headroom.rows if not row.name.startswith("pixels") and row.max_abs > 0]
    before = [row.bits for row in rows]
    after = [row.bits + headroom.exponents.get(row.name, 0) for row in rows]
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(10, 4.5), dpi=120, layout="constrained")
        axes = figure.subplots()
        axes.axhspan(min(-1.0, *before), 0, color=_LIMIT, alpha=0.12, lw=0)
        axes.axhline(0, color=_LIMIT, lw=1, label="end of FP16 (65,504)")
        if headroom.exponents:
            axes.plot(before, color=_BEFORE, lw=1, marker=".", ms=4, label="as trained")
        axes.plot(after, color=_AFTER, lw=1.2, marker=".", ms=4, label="as exported")
        starts = [i for i, row in enumerate(rows) if row.name.split(".")[0] != rows[max(0, i - 1)].name.split(".")[0]]
        # The single tensors before and after the stages would be labelled on top of one another.
        stages = [i for i in starts if rows[i].name.startswith("layer")]
        for i in stages:
            axes.axvline(i - 0.5, color="black", lw=0.5, alpha=0.3)
        axes.set_xticks(stages, [rows[i].name.split(".")[0] for i in stages], ha="left")
        axes.set_xlim(-0.5, len(rows) - 0.5)
        axes.set_ylabel("bits of head-room")
        axes.set_xlabel(f"tensors in the order of the graph; largest values over {headroom.images} training images")
        axes.set_title("How often the largest value of each tensor can double before it leaves FP16", loc="left")
        axes.grid(axis="y", alpha=0.25)
        axes.legend(loc="best", frameon=False)
        figure.savefig(path, format="png")
