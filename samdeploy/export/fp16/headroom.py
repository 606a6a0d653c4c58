"""How close every tensor of a graph comes to the end of FP16, on real images.

FP16 holds up to 65,504 (IEEE 754 binary16: 2 - 2^-10 times 2^15), and full precision down to 2^-14; below that, bits
are lost one by one.  Streamlined attention multiplies activations by a linear function of themselves, so they can grow
with the square of their input, and the room has to be measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from samdeploy.arrays import UInt8Array
from samdeploy.errors import ExportError
from samdeploy.graphs.edit import serialize, with_outputs
from samdeploy.graphs.inference import open_inference, run_inference
from samdeploy.graphs.shapes import float_tensors
from samdeploy.progress import progress_bar

FP16_MAX = 65504.0
FP16_SMALLEST_NORMAL = 2.0**-14

# Images per run: every tensor of the network is held at once.
_BATCH = 4


@dataclass(frozen=True, slots=True)
class TensorRange:
    """What was seen of one tensor, in FP32.

    Attributes:
        name: as in the graph.
        max_abs: largest absolute value.
        below_normal: share of its non-zero values that lie below FP16's smallest normal number, in percent.
    """

    name: str
    max_abs: float
    below_normal: float

    @property
    def bits(self) -> float:
        """Head-room: how often the largest value can double before it leaves FP16; negative where it has left."""
        return math.log2(FP16_MAX / self.max_abs) if self.max_abs > 0 else math.inf


def measure_ranges(model: onnx.ModelProto, images: UInt8Array) -> tuple[TensorRange, ...]:
    """Run an FP32 graph with every intermediate tensor as an output.

    Args:
        model: an FP32 graph.
        images: uint8 [n, H, W, 3], of the training split.

    Returns:
        One row per tensor, in the order of the graph.

    Raises:
        ExportError: a tensor holds values that are not finite.
    """
    names = float_tensors(model)
    session = open_inference(serialize(with_outputs(model, names)))
    seen = {name: _Seen() for name in names}
    with progress_bar("head-room", len(images)) as advance:
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            for name, value in zip(names, run_inference(session, {model.graph.input[0].name: batch}), strict=True):
                seen[name].add(name, value)
            advance(len(batch), "")
    return tuple(row.range(name) for name, row in seen.items())


class _Seen:
    """Running figures of one tensor."""

    def __init__(self) -> None:
        self.max_abs = 0.0
        self._below = self._non_zero = 0

    def add(self, name: str, value: Any) -> None:
        size = np.abs(value)
        largest = float(size.max())
        if not math.isfinite(largest):
            raise ExportError(f"{name}: not finite in FP32 on a training image; the network is broken, train again")
        self.max_abs = max(self.max_abs, largest)
        self._non_zero += int(np.count_nonzero(size))
        self._below += int(np.count_nonzero(size < FP16_SMALLEST_NORMAL)) - int(np.count_nonzero(size == 0))

    def range(self, name: str) -> TensorRange:
        return TensorRange(name, self.max_abs, 100 * self._below / max(1, self._non_zero))
