"""What an INT8 engine should answer: the trained network, with its tensors rounded and cut off as the graph says.

An honest INT8 engine is far from FP32 where activations leave the ranges it was calibrated for.  What is taken from
the INT8 graph here is those ranges and which weights are quantised; the weights themselves are the trained network's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.backends.reference import parse_graph, run_exactly, trained_graph
from samdeploy.backends.session import pick_file
from samdeploy.errors import BackendUnavailable

if TYPE_CHECKING:
    import onnx

    from samdeploy.bundle import Bundle

# What the quantiser appends to the name of the weights that it rounds.
_ROUNDED = "_quantized"


@dataclass(frozen=True, slots=True)
class Quantization:
    """What a graph says about its INT8 arithmetic.

    Attributes:
        grids: of every tensor that is quantised, by its name.
        weights: those that are INT8, by their name in the FP32 graph -> the axis of the output channels.
    """

    grids: Mapping[str, Grid]
    weights: Mapping[str, int]


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
        BackendUnavailable: PyTorch, onnx or ONNX Runtime is missing, or the bundle lacks the graph or the weights, or
            the graph's ranges are not written as numbers.
        BundleError, WeightsError: a file was changed.
    """
    quantization = read_quantization(bundle.read(pick_file(bundle, "graph", backend, "int8")))
    model = trained_graph(bundle)
    round_as(model, quantization)
    (logits,) = run_exactly(model, [model.graph.output[0].name], images).values()
    return logits


def read_quantization(graph: bytes) -> Quantization:
    """What the Q/DQ nodes of an ONNX file say.

    Raises:
        BackendUnavailable: onnx is missing, or a range is computed instead of written down.
    """
    model = parse_graph(graph)
    import onnx.numpy_helper

    from samdeploy.graphs.edit import attribute, constants

    numbers = constants(model)
    grids: dict[str, Grid] = {}
    weights: dict[str, int] = {}
    for node in model.graph.node:
        source = node.input[0] if node.input else ""
        if node.op_type == "DequantizeLinear" and source in numbers and source.endswith(_ROUNDED):
            weights[source.removesuffix(_ROUNDED)] = attribute(node, "axis", 1)
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
            raise BackendUnavailable(f"the INT8 graph does not hold the range of {source!r} as two numbers")
        grids[source] = grid
    return Quantization(grids, weights)


def round_as(model: onnx.ModelProto, quantization: Quantization) -> None:
    """Change an FP32 graph: round its weights, and every tensor that has a grid before anything reads it."""
    import onnx.numpy_helper

    from samdeploy.graphs.edit import constants, set_constant

    for name, weight in constants(model).items():
        if name in quantization.weights:
            set_constant(weight, _rounded(onnx.numpy_helper.to_array(weight), quantization.weights[name]))
    nodes: list[onnx.NodeProto] = []
    renamed: dict[str, str] = {}
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        nodes.append(node)
        for name in node.output:
            if name in quantization.grids:
                added, numbers = _rounding(name, quantization.grids[name])
                nodes += added
                model.graph.initializer.extend(numbers)
                renamed[name] = added[-1].output[0]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for output in model.graph.output:
        output.name = renamed.get(output.name, output.name)


def _rounding(name: str, grid: Grid) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes and constants that bring a tensor to its grid; not by Q/DQ nodes, whose arithmetic is what is in doubt."""
    import onnx.numpy_helper

    from samdeploy.graphs.edit import make_node

    numbers = {"scale": grid.scale, "low": grid.lowest - grid.zero_point, "high": grid.highest - grid.zero_point}
    steps, integers, clipped, rounded = (f"{name}.{part}" for part in ("steps", "integers", "clipped", "rounded"))
    nodes = [
        make_node("Div", steps, [name, f"{name}.scale"]),
        make_node("Round", integers, [steps]),
        make_node("Clip", clipped, [integers, f"{name}.low", f"{name}.high"]),
        make_node("Mul", rounded, [clipped, f"{name}.scale"]),
    ]
    arrays = {f"{name}.{key}": np.array(value, np.float32) for key, value in numbers.items()}
    return nodes, [onnx.numpy_helper.from_array(array, key) for key, array in arrays.items()]


def _rounded(weight: Float32Array, axis: int) -> Float32Array:
    """One scale per output channel, the same on both sides of zero."""
    others = tuple(other for other in range(weight.ndim) if other != axis)
    step = np.abs(weight).max(axis=others, keepdims=True) / np.float32(127)
    return np.where(step > 0, np.round(weight / np.where(step > 0, step, 1)) * step, 0).astype(np.float32)
