"""FP16 that holds: rescale by powers of two first, keep a layer in FP32 only where that is not enough."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.export.fp16.convert import convert
from samdeploy.export.fp16.emulate import emulation, rounding
from samdeploy.export.fp16.headroom import FP16_MAX, TensorRange
from samdeploy.export.network import Network
from samdeploy.graphs.edit import serialize, with_outputs
from samdeploy.graphs.inference import Options, open_inference, run_inference
from samdeploy.graphs.layers import Layers, find_layers

# A layer stays in FP32 where rounding to FP16 moves one image's output by more than this share of its norm.  FP16's
# own rounding of a residual block is about 1e-3, a few times that where terms cancel; more means that values were lost
# below the smallest normal number.
MAX_LAYER_ERROR = 5e-2

# Images per run: all borders between layers are held at once.
_BATCH = 4
# Before the names of the tensors that are computed in FP16.
_ROUNDED = "fp16/"


@dataclass(frozen=True, slots=True)
class Fp16Plan:
    """How a network is brought to FP16.

    Attributes:
        graph: FP32, rescaled where `exponents` says so; the same function.
        exponents: tensor -> k, where the graph stores it as its value times 2**-k; only those that are not 0.
        fp32: layers that stay in FP32, each with the reason.
    """

    graph: onnx.ModelProto
    exponents: Mapping[str, int]
    fp32: dict[str, str]


def plan_fp16(network: Network, ranges: Iterable[TensorRange], images: UInt8Array) -> Fp16Plan:
    """Find the exponents, then the layers that even they do not help.

    Args:
        network: with its FP32 graph.
        ranges: of that graph, measured on training images.
        images: uint8 [n, H, W, 3], training images to try each layer on.
    """
    largest = {row.name: row.max_abs for row in ranges}
    scaled, exponents = network.rescale(largest)
    layers = find_layers(scaled)
    stored = {name: value * 2.0 ** -exponents.get(name, 0) for name, value in largest.items()}
    fp32 = {**_rounded_badly(scaled, layers, images), **_out_of_range(scaled, layers, stored)}
    return Fp16Plan(scaled, exponents, {layer.name: fp32[layer.name] for layer in layers.network if layer.name in fp32})


def _out_of_range(graph: onnx.ModelProto, layers: Layers, largest: Mapping[str, float]) -> dict[str, str]:
    """Layers with a tensor that left FP16 on a training image; with the reason."""
    made = {node.name: node.output for node in graph.graph.node}
    found = {}
    for layer in layers.network:
        name = max((name for node in layer.nodes for name in made[node]), key=lambda name: largest.get(name, 0.0))
        if largest.get(name, 0.0) > FP16_MAX:
            found[layer.name] = f"leaves the range of FP16 (65,504): {name} reaches {largest[name]:.4g}"
    return found


def _rounded_badly(graph: onnx.ModelProto, layers: Layers, images: UInt8Array) -> dict[str, str]:
    """Layers whose output, from an exact input, is not finite in FP16 or too far off; with the reason."""
    finite = {layer.name: True for layer in layers.network}
    errors = dict.fromkeys(finite, 0.0)
    for exact, rounded in _outputs(_side_by_side(graph, layers), layers, images):
        for layer, expected, found in zip(layers.network, exact, rounded, strict=True):
            finite[layer.name] &= bool(np.isfinite(found).all())
            if finite[layer.name] and layer is not layers.head:
                errors[layer.name] = max(errors[layer.name], _error(found, expected))
    reasons = {}
    for name, error in errors.items():
        if not finite[name]:
            reasons[name] = "leaves the range of FP16 (65,504)"
        elif error > MAX_LAYER_ERROR:
            reasons[name] = f"rounding to FP16 moves its output by {100 * error:.1f} % of its norm"
    return reasons


def _error(found: Float32Array, expected: Float32Array) -> float:
    """The largest difference of an image, as a share of its norm."""
    exact = expected.reshape(len(expected), -1).astype(np.float64)
    difference = np.linalg.norm(found.reshape(exact.shape) - exact, axis=1)
    return float((difference / np.maximum(np.linalg.norm(exact, axis=1), 1e-30)).max())


def _side_by_side(graph: onnx.ModelProto, layers: Layers) -> onnx.ModelProto:
    """The exact graph, and beside it a copy of each layer in emulated FP16 that reads the exact input.

    Outputs are those of all layers, first the exact ones, then the copies'.
    """
    borders = [layer.output for layer in (layers.pixels, *layers.network)]
    both = with_outputs(graph, [*borders[1:], *(_ROUNDED + name for name in borders[1:])])
    del both.graph.value_info[:]
    copied = emulation(convert(graph, allow_overflow=True))
    rounded_input = {name: f"{_ROUNDED}{name}.input" for name in borders}
    for name in borders[:-1]:
        both.graph.node.extend(rounding(name, rounded_input[name]))
    nodes = [node for node in copied.graph.node if node.name not in layers.pixels.nodes]
    own = {name for node in nodes for name in node.output} | {tensor.name for tensor in copied.graph.initializer}
    for node in nodes:
        node.name = _ROUNDED + node.name
        node.input[:] = [rounded_input.get(name) or (_ROUNDED if name in own else "") + name for name in node.input]
        node.output[:] = [_ROUNDED + name for name in node.output]
        both.graph.node.append(node)
    for tensor in copied.graph.initializer:
        tensor.name = _ROUNDED + tensor.name
        both.graph.initializer.append(tensor)
    return both


def _outputs(
    graph: onnx.ModelProto, layers: Layers, images: UInt8Array
) -> Iterator[tuple[list[Float32Array], list[Float32Array]]]:
    """Of each batch, every layer's exact output and its copy's."""
    inference = open_inference(serialize(graph), Options(optimized=False))
    for start in range(0, len(images), _BATCH):
        found = [
            np.asarray(array, np.float32)
            for array in run_inference(inference, {graph.graph.input[0].name: images[start : start + _BATCH]})
        ]
        yield found[: len(layers.network)], found[len(layers.network) :]
