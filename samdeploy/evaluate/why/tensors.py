"""Two sets of intermediate tensors, compared one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from samdeploy.arrays import Float32Array
from samdeploy.backends.difference import difference_shares, image_ranges
from samdeploy.evaluate.finite_json import finite_json

FP16_MAX = 65504.0


@dataclass(frozen=True, slots=True)
class TensorRow:
    """One tensor of the network and of the engine.

    Attributes:
        name: as in the graph.
        error: largest difference, as a share of the tensor's `samdeploy.backends.difference.image_ranges` in the
            network; infinite where a value is not finite.
        inputs: the tensors that it is computed from.
        inputs_error: the largest error among them; 0 where there are none.
        channels_off: channels with a difference of more than a tenth of the largest, of `channels`.
        not_finite: values of the engine that are NaN or infinite.
        max_abs: largest absolute value in the network, as the engine's graph stores it.
    """

    name: str
    error: float
    inputs: tuple[str, ...]
    inputs_error: float
    channels_off: int
    channels: int
    not_finite: int
    max_abs: float

    @property
    def bits(self) -> float | None:
        """Head-room: how often the largest value can double before it leaves FP16; None for a tensor of zeros."""
        return math.log2(FP16_MAX / self.max_abs) if self.max_abs > 0 else None

    def to_json(self) -> dict[str, Any]:
        """As in eval.json; see docs/files.md."""
        return {**finite_json(self), "bits": self.bits}


def compare_tensors(
    reference: Mapping[str, Float32Array],
    found: Mapping[str, Float32Array],
    sources: Mapping[str, tuple[str, ...]],
    stored: Mapping[str, int],
) -> tuple[TensorRow, ...]:
    """One row per tensor that both have, in the order of the reference.

    Args:
        reference, found: name -> float32 [n, ...]; true values, not as stored.
        sources: name -> tensors that it is computed from.
        stored: name -> k, where the engine's graph stores a tensor times 2**-k.
    """
    errors = {name: error_share(found[name], value) for name, value in reference.items() if name in found}
    return tuple(
        TensorRow(
            name=name,
            error=error,
            inputs=sources.get(name, ()),
            inputs_error=max((errors[source] for source in sources.get(name, ()) if source in errors), default=0.0),
            channels_off=len(_channels_off(found[name], reference[name])),
            channels=_channels(reference[name]),
            not_finite=int((~np.isfinite(found[name])).sum()),
            max_abs=float(np.abs(reference[name]).max()) * 2.0 ** -stored.get(name, 0),
        )
        for name, error in errors.items()
    )


def error_share(found: Float32Array, expected: Float32Array) -> float:
    """Largest difference as a share of `image_ranges`; infinite where not finite or of another shape."""
    if found.shape != expected.shape:
        return math.inf
    # A constant tensor has no range: its size stands in, or 1 where it is zero.
    ranges = image_ranges(expected, float(np.abs(expected).max()) or 1.0)
    return float(difference_shares(found, expected, ranges).max())


def _channels(value: Float32Array) -> int:
    return value.shape[1] if value.ndim > 1 else 1


def _channels_off(found: Float32Array, expected: Float32Array) -> list[int]:
    """Channels (axis 1) with a difference of more than a tenth of the largest, or that are not finite."""
    if found.shape != expected.shape or found.ndim < 2:
        return []
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(found.astype(np.float64) - expected)
    difference[~np.isfinite(difference)] = np.inf
    worst = difference.max(axis=(0, *range(2, found.ndim)))
    largest = float(worst.max())
    is_off = worst == np.inf if largest == np.inf else worst > 0.1 * largest
    return [int(channel) for channel in np.flatnonzero(is_off)]
