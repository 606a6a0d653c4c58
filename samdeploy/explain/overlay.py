"""A signed map as colours over an image: red is high, blue is below zero, and where nothing is, nothing is drawn.

Its colours are matplotlib's, of the extra `plots`, which is imported when they are asked for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samdeploy.arrays import UInt8Array

# Blue to red through near-white, with ends that differ in lightness from neither each other nor most images too
# much (Moreland 2009, "Diverging color maps for scientific visualization").
_COLOURS = "coolwarm"
# How much of the image the strongest colour covers.
_STRONGEST = 0.8
# Below 1, so that half the largest value is still clearly coloured.
_GAMMA = 0.7
# What the network never saw is washed out by this much.
_WASHED = 0.7


def overlay(shown: UInt8Array, values: NDArray[np.float32], seen: NDArray[np.bool_], scale: float) -> UInt8Array:
    """Colour an image, made grey so that every colour is the map's.

    Args:
        shown: uint8 [h, w, 3] RGB.
        values: float32 [h, w].
        seen: bool [h, w]; elsewhere the image is washed out and no map is drawn.
        scale: the absolute value that gets the strongest colour; above 0.

    Returns:
        uint8 [h, w, 3] RGB.
    """
    grey = (shown.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32))[:, :, None]
    strength = np.clip(values / scale, -1, 1)
    cover = (_STRONGEST * np.abs(strength) ** _GAMMA)[:, :, None]
    mixed = grey * (1 - cover) + colours(strength) * cover
    washed = grey * (1 - _WASHED) + 255 * _WASHED
    return np.where(seen[:, :, None], mixed, washed).round().astype(np.uint8)


def layer(values: NDArray[np.float32], seen: NDArray[np.bool_], scale: float) -> UInt8Array:
    """The map alone, to be laid over the image: uint8 [h, w, 4] RGBA, transparent where `overlay` draws nothing."""
    strength = np.clip(values / scale, -1, 1)
    cover = np.where(seen, np.abs(strength) ** _GAMMA, 0)
    return np.dstack([colours(strength), (255 * cover).round().astype(np.uint8)])


def colours(strength: NDArray[np.float32]) -> UInt8Array:
    """uint8 [..., 3] RGB for values from -1 (blue) to 1 (red)."""
    import matplotlib  # late: an extra, and half a second

    table: UInt8Array = matplotlib.colormaps[_COLOURS](np.arange(256) / 255, bytes=True)[:, :3]
    return table[np.round((strength + 1) * 127.5).astype(np.intp)]


def legend_bar(width: int, height: int) -> UInt8Array:
    """uint8 [height, width, 3] RGB: the colours from the lowest to the highest, as they lie over middle grey."""
    strength = np.tile(np.linspace(-1, 1, width, dtype=np.float32), (height, 1))
    return overlay(np.full((height, width, 3), 128, np.uint8), strength, np.ones((height, width), np.bool_), 1.0)
