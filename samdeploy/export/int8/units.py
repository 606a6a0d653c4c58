"""Units: what INT8 quantises, or leaves in FP32, as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from samdeploy.graphs.edit import constants
from samdeploy.graphs.layers import WEIGHTED, find_layers, is_global_pool, on_the_way

# What reads values that 8 bits cannot hold: scores with masks of -100, and the sums of a whole network of tokens.
_EXACT = ("Softmax", "LayerNormalization", "GroupNormalization", "InstanceNormalization")
# What lies between a product and one of those: biases, skips and scales, with their layout.
_CARRIES = ("Add", "Sub", "Mul", "Div", "Where", "Concat", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Expand")
# Activations that the quantiser takes into the range of the convolution before them.
_JOINED = ("Relu", "Clip")


def find_units(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Unit -> its nodes.

    Of a layer with branches there are two: "<layer>.convs" has the weighted nodes, with the ReLU that directly follows
    one, and "<layer>.rest" has all others: sums, products, and whatever is computed from pooled values, such as a
    gate.  A layer without branches is one unit.  Normalisation and head are none: they stay in FP32, and so do sums and
    scales before a softmax or a norm that is no batch norm, and the parts of a GELU, which runtimes compute as one
    kernel.
    """
    data = set(on_the_way(model))
    stay = _before_exact(model, data) | _gelus(model)
    by_name = {node.name: node for node in model.graph.node}
    units: dict[str, tuple[str, ...]] = {}
    for layer in find_layers(model).network[:-1]:
        nodes = [by_name[name] for name in layer.nodes]
        if all(len(data & set(node.input)) <= 1 for node in nodes):
            units[layer.name] = layer.nodes
            continue
        convs = _convolutions(model, nodes, data)
        units[f"{layer.name}.convs"] = tuple(name for name in layer.nodes if name in convs)
        units[f"{layer.name}.rest"] = tuple(name for name in layer.nodes if name not in convs)
    quantised = {unit: tuple(name for name in nodes if name not in stay) for unit, nodes in units.items()}
    return {unit: nodes for unit, nodes in quantised.items() if nodes}


def _before_exact(model: onnx.ModelProto, data: set[str]) -> set[str]:
    """Nodes between products and the softmax or norm that reads their sum."""
    makers = {name: node for node in model.graph.node for name in node.output}
    found: set[str] = set()
    waiting = [node.input[0] for node in model.graph.node if node.op_type in _EXACT]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.op_type in _CARRIES and node.name not in found:
            found.add(node.name)
            waiting += [name for name in node.input if name in data]
    return found


def _gelus(model: onnx.ModelProto) -> set[str]:
    """The sums and products around an Erf: ``x / sqrt(2)``, then ``(erf + 1) * x * 0.5`` in any order."""
    makers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: set[str] = set()
    for erf in model.graph.node:
        if erf.op_type != "Erf":
            continue
        before = makers.get(erf.input[0])
        if before is not None and before.op_type in ("Mul", "Div"):
            found.add(before.name)
        name = erf.output[0]
        for op in ("Add", "Mul", "Mul"):
            after = readers.get(name, [])
            if len(after) != 1 or after[0].op_type != op:
                break
            found.add(after[0].name)
            name = after[0].output[0]
    return found


def _convolutions(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], data: set[str]) -> set[str]:
    """Nodes of a layer that multiply by weights at every position, with the ReLUs that follow them."""
    weights = constants(model)
    convs: set[str] = set()
    pooled: set[str] = set()  # tensors that are computed from means alone
    made: set[str] = set()  # by `convs`
    for node in nodes:
        read = data & set(node.input)
        if is_global_pool(model, node) or (read and read <= pooled):
            pooled |= set(node.output)
        elif (node.op_type in WEIGHTED and node.input[1] in weights) or (node.op_type in _JOINED and read <= made):
            convs.add(node.name)
            # Only what directly follows a convolution joins it.
            made |= set(node.output) if node.op_type in WEIGHTED else set()
    return convs
