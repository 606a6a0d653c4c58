"""What an INT8 engine should answer: the trained network, with its tensors rounded and cut off as the graph says.

An honest INT8 engine is far from FP32 where activations leave the ranges it was calibrated for.  What is taken from
the graph here is those ranges and which layers are quantised; weights are the trained network's, rounded by PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.backends.registry import load_module
from samdeploy.backends.session import pick_file
from samdeploy.errors import BackendUnavailable

if TYPE_CHECKING:
    from samdeploy.bundle import Bundle


# What the quantiser appends to the name of the weights that it rounds.
_ROUNDED = ".weight_quantized"


@dataclass(frozen=True, slots=True)
class Quantization:
    """What a graph says about its INT8 arithmetic.

    Attributes:
        grids: of every tensor that is quantised, by its name.
        layers: whose weights are INT8, by the names of their nodes.
    """

    grids: Mapping[str, Grid]
    layers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Grid:
    """The integers `lowest` to `highest`, of which each stands for (integer - zero_point) * scale."""

    scale: float
    zero_point: int
    lowest: int
    highest: int


def int8_reference(bundle: Bundle, backend: str, images: UInt8Array) -> Float32Array:
    """Logits of the trained network with the ranges of the INT8 graph that `backend` runs.

    Args:
        images: uint8 [N, H, W, 3], RGB.

    Returns:
        float32 [N, K].

    Raises:
        BackendUnavailable: PyTorch or onnx is missing, or the bundle lacks the graph or the weights, or the graph's
            ranges are not written as numbers.
        BundleError, WeightsError: a file was changed.
    """
    graph = bundle.read(pick_file(bundle, "graph", backend, "int8"))
    module = cast(Any, load_module("pytorch"))
    logits: Float32Array = module.quantized_logits(bundle, images, read_quantization(graph))
    return logits


def read_quantization(graph: bytes) -> Quantization:
    """What the Q/DQ nodes of an ONNX file say.

    Raises:
        BackendUnavailable: onnx is missing, or a range is computed instead of written down.
    """
    try:
        import onnx
        import onnx.numpy_helper
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            "the ranges of an INT8 graph need the package 'onnx', which is not installed; "
            "pip install 'samdeploy[export]'"
        ) from error
    model = onnx.load_from_string(graph)
    numbers = {tensor.name: tensor for tensor in model.graph.initializer}
    grids: dict[str, Grid] = {}
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear":
            continue
        try:
            scale, zero_point = (onnx.numpy_helper.to_array(numbers[name]) for name in node.input[1:3])
            limits = np.iinfo(zero_point.dtype)
            grid: Grid | None = Grid(float(scale), int(zero_point), int(limits.min), int(limits.max))
        except (KeyError, ValueError, TypeError):
            grid = None
        # An infinite range would excuse any answer.
        if grid is None or not 0 < grid.scale < math.inf:
            raise BackendUnavailable(f"the INT8 graph does not hold the range of {node.input[0]!r} as two numbers")
        grids[node.input[0]] = grid
    layers = frozenset(name.removesuffix(_ROUNDED) for name in numbers if name.endswith(_ROUNDED))
    return Quantization(grids, layers)
