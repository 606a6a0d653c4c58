"""Layers: a graph cut at the tensors that every path from the image to the logits passes through.

A residual block is one layer, since its skip goes around all that is in it.  Nodes without weights belong to the layer
before them: a stem is its convolution, ReLU and max pool.  A global average pool begins the last layer, the head.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx

from samdeploy.errors import ExportError
from samdeploy.graphs.edit import attribute, integers
from samdeploy.graphs.pixels import PIXELS

# What multiplies by weights, and what a network's multiply-adds are in.
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True)
class Layer:
    """Nodes that follow one another in the graph.

    Attributes:
        name: the dotted prefix that its nodes share, such as "layer1.0", or else the name of its first weighted node.
        nodes: their names, in the graph's order.
        output: the tensor that all later layers are computed from.
    """

    name: str
    nodes: tuple[str, ...]
    output: str


@dataclass(frozen=True, slots=True)
class Layers:
    """A whole graph.

    Attributes:
        pixels: what comes before the first weighted node: the normalisation.
        network: all others; the last one is the head.
    """

    pixels: Layer
    network: tuple[Layer, ...]

    @property
    def head(self) -> Layer:
        return self.network[-1]


def find_layers(model: onnx.ModelProto) -> Layers:
    """Cut a graph with one input and one output.

    Raises:
        ExportError: a node has no name of its own, or none has weights.
    """
    names = [node.name for node in model.graph.node]
    if len({*names, ""}) <= len(names):
        raise ExportError("graph: some nodes have no name, or another node's, so layers cannot be told apart")
    pixels, *network = _merge(model, _segments(model))
    if not network:
        raise ExportError(f"graph: no node has weights; one of {', '.join(WEIGHTED)} expected")
    titles = [_prefix(segment) or _weighted(segment) for segment in network]
    layers = [
        _layer(title if titles.count(title) == 1 else _weighted(segment), segment)
        for title, segment in zip(titles, network, strict=True)
    ]
    return Layers(_layer(PIXELS, pixels), tuple(layers))


def on_the_way(model: onnx.ModelProto) -> dict[str, int]:
    """Tensors computed from the image -> how many nodes read them; shapes and what is computed from those apart."""
    readers = {model.graph.input[0].name: 0}
    for node in model.graph.node:
        read = {name for name in node.input if name in readers}
        if read and node.op_type != "Shape":
            for name in read:
                readers[name] += 1
            readers.update(dict.fromkeys((name for name in node.output if name), 0))
    return readers


def is_global_pool(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    """Whether a node takes the mean over both spatial axes of [N, C, H, W] or [N, H, W, C]."""
    return pooled_axes(model, node) is not None


def pooled_axes(model: onnx.ModelProto, node: onnx.NodeProto) -> tuple[int, int] | None:
    """(2, 3) or (1, 2), the spatial axes that a node takes the mean over; None for any other node."""
    if node.op_type == "GlobalAveragePool":
        return 2, 3
    if node.op_type != "ReduceMean":
        return None
    axes = attribute(node, "axes") or (integers(model, node.input[1]) if len(node.input) > 1 else None) or []
    found = tuple(sorted(axis % 4 for axis in axes))
    return found if found in ((2, 3), (1, 2)) else None


def _segments(model: onnx.ModelProto) -> Iterable[list[onnx.NodeProto]]:
    """Nodes up to each tensor that is the only one still to be read.

    The nodes are in topological order, so whatever comes before such a tensor leads to it, and all others follow it.
    """
    unread = on_the_way(model)
    for value in model.graph.output:
        unread[value.name] = unread.get(value.name, 0) + 1
    waiting = {model.graph.input[0].name}
    segment: list[onnx.NodeProto] = []
    for node in model.graph.node:
        segment.append(node)
        if node.op_type == "Shape" or not any(name in unread for name in node.input):
            continue
        for name in {name for name in node.input if name in unread}:
            unread[name] -= 1
        waiting = {name for name in (*waiting, *node.output) if unread.get(name)}
        if len(waiting) == 1:
            yield segment
            segment = []


def _merge(model: onnx.ModelProto, segments: Iterable[list[onnx.NodeProto]]) -> list[list[onnx.NodeProto]]:
    """The normalisation, and a list for each layer."""
    merged: list[list[onnx.NodeProto]] = [[]]
    head = False
    for segment in segments:
        pools = len(merged) > 1 and any(is_global_pool(model, node) for node in segment) and not _weighted(segment)
        if pools or (_weighted(segment) and not head):
            merged.append([])
        head = head or pools
        merged[-1] += segment
    return merged


def _layer(name: str, nodes: Sequence[onnx.NodeProto]) -> Layer:
    return Layer(name, tuple(node.name for node in nodes), nodes[-1].output[0])


def _weighted(nodes: Sequence[onnx.NodeProto]) -> str:
    """Name of the first weighted node; "" without one."""
    return next((node.name for node in nodes if node.op_type in WEIGHTED), "")


def _prefix(nodes: Sequence[onnx.NodeProto]) -> str:
    """ "layer1.0" of "layer1.0.conv1" and "layer1.0.relu"."""
    parts = [node.name.split(".") for node in nodes]
    shared = 0
    while all(len(names) > shared and names[: shared + 1] == parts[0][: shared + 1] for names in parts):
        shared += 1
    return ".".join(parts[0][:shared])
