"""Multiply-adds of a graph for one image, in its convolutions and matrix products."""

from __future__ import annotations

from math import prod

import onnx

from samdeploy.errors import ExportError
from samdeploy.graphs.layers import WEIGHTED, find_layers
from samdeploy.graphs.shapes import Tensor, infer_tensors


def multiply_adds(model: onnx.ModelProto) -> dict[str, int]:
    """Node -> multiply-adds, of every node in `WEIGHTED`.

    Raises:
        ExportError: a shape cannot be inferred.
    """
    tensors = infer_tensors(model)
    return {
        node.name: _multiply_adds(node, [tensors[name] for name in node.input], tensors[node.output[0]])
        for node in model.graph.node
        if node.op_type in WEIGHTED
    }


def layer_multiply_adds(model: onnx.ModelProto) -> dict[str, int]:
    """Layer -> multiply-adds, in the graph's order; raises as `multiply_adds` does."""
    by_node = multiply_adds(model)
    return {layer.name: sum(by_node.get(node, 0) for node in layer.nodes) for layer in find_layers(model).network}


def _multiply_adds(node: onnx.NodeProto, inputs: list[Tensor], output: Tensor) -> int:
    """Each value of the output, or of a transposed convolution's input, is multiplied with one filter."""
    x, weight = inputs[0].shape, inputs[1].shape
    values, filter_size = {
        "Conv": (output.shape, weight[1:]),  # [O, I / groups, ...]
        "ConvTranspose": (x, weight[1:]),  # [I, O / groups, ...]
    }.get(node.op_type, (output.shape, x[-1:]))
    # The first axis may not be known to be 1, which is the batch.
    count = (values[0] or 1) * prod(values[1:]) * prod(filter_size)
    if count < 1:
        raise ExportError(f"graph: cost of {node.name} ({node.op_type}) unknown: its shapes cannot be inferred")
    return count
