"""The gates of all attention modules as one image.  Imports matplotlib: the extra `plots`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from samdeploy.explain.module_gates import ModuleGates

if TYPE_CHECKING:
    from samdeploy.models.family import ChannelGates

# Okabe and Ito's palette, which people who see colours differently can tell apart.
_OPENED, _CLOSED = "#D55E00", "#0072B2"
_COLUMNS = 4


def plot_gates(gates: Sequence[ModuleGates], network: ChannelGates, images: int, file: IO[bytes]) -> None:
    """Write a PNG: per module its channels, sorted by their mean gate, with the spread over the images.

    Args:
        gates: in the order of the network.
        network: the kind of the gates.
        images: how many images they were measured on.
        file: gets the PNG.
    """
    rows = -(-len(gates) // _COLUMNS)
    neutral = network.neutral
    with matplotlib.rc_context({"font.size": 8, "axes.titlesize": 9}):
        figure = Figure(figsize=(11, 1.4 + 1.9 * rows), dpi=110, layout="constrained")
        grid = figure.subplots(rows, min(_COLUMNS, len(gates)), squeeze=False)
        for axes in grid.flat[len(gates) :]:
            axes.axis("off")
        for axes, module in zip(grid.flat, gates, strict=False):
            order = np.argsort(module.mean, kind="stable")
            mean, spread = module.mean[order], module.spread[order]
            share = np.linspace(0, 100, len(mean))
            axes.fill_between(
                share, mean, neutral, where=mean >= neutral, color=_OPENED, alpha=0.3, lw=0, interpolate=True
            )
            axes.fill_between(
                share, mean, neutral, where=mean <= neutral, color=_CLOSED, alpha=0.3, lw=0, interpolate=True
            )
            axes.fill_between(share, mean - spread, mean + spread, color="black", alpha=0.15, lw=0)
            axes.plot(share, mean, color="black", lw=1)
            axes.axhline(neutral, color="black", lw=0.8, ls="--")
            axes.set_title(f"{module.name}, {len(mean)} channels", loc="left")
            axes.set_xlim(0, 100)
            axes.margins(y=0.08)
            if axes.get_ylim()[0] < 0:
                axes.axhline(0, color="black", lw=0.6, alpha=0.5)
        figure.suptitle(
            f"Gates {network.formula} of every attention module: mean over {images:,} images "
            "(grey: standard deviation).\n"
            f"Dashed: {neutral:.0f}, the neutral gate; orange: opened above it; blue: "
            + ("closed below it; below 0 the channel's sign turns" if neutral else "the channel's sign is turned"),
            fontsize=9, x=0.01, ha="left",
        )  # fmt: skip
        figure.supxlabel(
            "channels, sorted by their gate, in % of the module's channels; each module has a scale of its own",
            fontsize=8,
        )
        figure.supylabel("gate", fontsize=8)
        figure.savefig(file, format="png")
