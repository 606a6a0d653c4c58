"""The end of a graph: the mean of features and one linear layer, which is what class activation maps are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from samdeploy.graphs.edit import attribute, constants
from samdeploy.graphs.layers import find_layers, pooled_axes

# Between the average pool and the linear layer, what changes no value: [N, C, 1, 1] -> [N, C].
_FLATTENS = ("Flatten", "Reshape", "Squeeze", "Identity", "Dropout")


class NoMaps(Exception):
    """The network does not end in the mean of its features and one linear layer; says what is there instead."""


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a graph: ``logits = weight . mean(features) + bias``.

    Attributes:
        features: name of the tensor [N, C, h, w], or [N, h, w, C] where `channels_last`.
        channels_last: whether it is stored so.
        nodes: from the pool to the logits.
        name: of the matrix product.
        weight: name of the constant that holds it.
        bias: name of the constant [K]; None where nothing is added.
        transposed: whether the constant is [C, K] instead of [K, C].
    """

    features: str
    channels_last: bool
    nodes: tuple[str, ...]
    name: str
    weight: str
    bias: str | None
    transposed: bool


def find_head(model: onnx.ModelProto) -> Head:
    """Find the average pool and the linear layer at the end of an FP32 graph.

    Raises:
        NoMaps: the graph ends in something else.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    known = constants(model)
    product, bias, nodes = _linear(makers, known, model.graph.output[0].name)
    pool = makers.get(product.input[0])
    while pool is not None and pool.op_type in _FLATTENS:
        nodes.append(pool)
        pool = makers.get(pool.input[0])
    axes = pooled_axes(model, pool) if pool is not None else None
    if pool is None or axes is None:
        raise NoMaps(_other_head(model, makers, pool))
    nodes.append(pool)
    names = tuple(node.name for node in reversed(nodes))
    return Head(pool.input[0], axes == (1, 2), names, product.name, product.input[1], bias, _is_transposed(product))


def find_linear_input(model: onnx.ModelProto) -> tuple[str, int]:
    """The tensor [N, C] that the linear layer at the end of an FP32 graph reads, and C.

    Raises:
        NoMaps: the logits are not made by one linear layer.
    """
    known = constants(model)
    product, _, _ = _linear(
        {name: node for node in model.graph.node for name in node.output}, known, model.graph.output[0].name
    )
    return product.input[0], int(known[product.input[1]].dims[0 if _is_transposed(product) else 1])


def _is_transposed(product: onnx.NodeProto) -> bool:
    """Whether the weight is [C, K] instead of [K, C]."""
    return product.op_type == "MatMul" or not attribute(product, "transB", 0)


def _other_head(model: onnx.ModelProto, makers: Mapping[str, onnx.NodeProto], node: onnx.NodeProto | None) -> str:
    """What the linear layer reads instead of the mean of features."""
    while node is not None and node.op_type == "Transpose":  # to and from the layout of a norm
        node = makers.get(node.input[0])
    if node is None:
        return "the head reads the image, not the mean of features"
    found = f"{node.op_type} ({node.name})"
    if node.op_type in ("Gather", "Slice", "Split"):
        return f"the head reads the class token, or another part of the features, by {found}; not their mean"
    if node.op_type == "ReduceMean":
        return f"the head reads {found}, not the mean over the height and width of features"
    head = find_layers(model).head.nodes
    if any(part.name in head and pooled_axes(model, part) for part in model.graph.node):
        return f"{found} is between the mean of the features and the linear layer, so no logit is a sum over positions"
    return f"the head reads {found}, not the mean of features"


def _linear(
    makers: Mapping[str, onnx.NodeProto], known: Mapping[str, onnx.TensorProto], logits: str
) -> tuple[onnx.NodeProto, str | None, list[onnx.NodeProto]]:
    """The matrix product that makes the logits, its bias, and its nodes, the last one first."""
    node, bias, nodes = makers[logits], None, []
    if node.op_type == "Add" and node.input[1] in known and node.input[0] in makers:
        bias, nodes, node = node.input[1], [node], makers[node.input[0]]
    plain = all(attribute(node, name, value) == value for name, value in (("alpha", 1.0), ("beta", 1.0), ("transA", 0)))
    if node.op_type not in ("Gemm", "MatMul") or not plain or node.input[1] not in known:
        raise NoMaps(f"the logits are made by {node.op_type} ({node.name}), not by one linear layer")
    if len(node.input) > 2 and node.input[2] and bias is None:
        bias = node.input[2]
    return node, bias, [*nodes, node]
