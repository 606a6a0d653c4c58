"""Which normalisation an engine has, from what it makes of known pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samdeploy.arrays import Float32Array
from samdeploy.bundle.spec import Preprocessing

# Means and deviations that differ by less than this, in units of 0 to 1, are taken for the same.
_SAME = 2e-3


@dataclass(frozen=True, slots=True)
class _Line:
    """A channel of the engine as ``scale * pixels[channel] + shift``, and the largest value left over."""

    channel: int
    scale: float
    shift: float
    residual: float


def normalisation_fault(pixels: Float32Array, normalised: Float32Array, stated: Preprocessing, tolerance: float) -> str:
    """In words, how the engine's normalisation differs from the one that the bundle states.

    Args:
        pixels: float32 [n, 3, H, W], red, green, blue in 0..255.
        normalised: float32 [n, 3, H, W], what the engine makes of them.
        stated: what it should make of them.
        tolerance: what may be left over, as a share of the range.
    """
    lines = [_line_through(pixels, normalised[:, channel], channel) for channel in range(3)]
    span = float(np.ptp(normalised)) or 1.0
    if max(line.residual for line in lines) > max(tolerance, 1e-3) * span:
        return "the normalisation: what the engine makes of the pixels is no multiple of them plus a constant"
    right = f"the bundle states mean {_three(stated.mean)} and std {_three(stated.std)}"
    scale, shift = np.array([line.scale for line in lines]), np.array([line.shift for line in lines])
    if np.allclose(scale, 1, rtol=1e-3) and np.allclose(shift, 0, atol=1e-3):
        return f"the normalisation is missing: the engine takes pixels of 0 to 255 as they are; {right}"
    with np.errstate(divide="ignore", invalid="ignore"):
        std = 1 / (255 * scale)
        mean = -shift * std
    if _is(std, (1, 1, 1)) and _is(mean, (0, 0, 0)):
        return f"the normalisation is missing: the engine takes pixels of 0 to 1; {right}"
    is_swapped = [line.channel for line in lines] == [2, 1, 0]
    if is_swapped or (_is(mean, stated.mean[::-1]) and _is(std, stated.std[::-1])):
        return (
            f"the order of the channels: the engine takes red for blue and blue for red; {right} for red, green, blue"
        )
    return f"the normalisation: the engine has mean {_three(mean)} and std {_three(std)}; {right}"


def _line_through(pixels: Float32Array, found: Float32Array, own: int) -> _Line:
    """The colour that explains a channel best; its own where another explains it no better (grey images)."""
    y = found.astype(np.float64).ravel()
    lines = []
    for channel in (own, *(other for other in range(3) if other != own)):
        x = pixels[:, channel].astype(np.float64).ravel()
        # Where all pixels are the same, any line through their one point is as good.
        scale = float(np.mean((x - x.mean()) * (y - y.mean())) / (x.var() or 1.0))
        shift = float(y.mean() - scale * x.mean())
        lines.append(_Line(channel, scale, shift, float(np.abs(y - scale * x - shift).max())))
    best = min(line.residual for line in lines)
    return next(line for line in lines if line.residual <= 2 * best + 1e-6)


def _is(found: NDArray[np.float64], expected: Sequence[float]) -> bool:
    return bool(np.allclose(found, expected, rtol=0, atol=_SAME))


def _three(values: Sequence[float] | NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{value:.3f}" for value in values) + ")"
