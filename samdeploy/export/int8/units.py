"""Units: what INT8 quantises, or leaves in FP32, as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from samdeploy.graphs.edit import constants
from samdeploy.graphs.layers import WEIGHTED, find_layers, is_global_pool, on_the_way

# Activations that the quantiser takes into the range of the convolution before them.
_JOINED = ("Relu", "Clip")


def find_units(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Unit -> its nodes.

    Of a layer with branches there are two: "<layer>.convs" has the weighted nodes, with the ReLU that directly follows
    one, and "<layer>.rest" has all others: sums, products, and whatever is computed from pooled values, such as a
    gate.  A layer without branches is one unit.  Normalisation and head are none: they stay in FP32.
    """
    data = set(on_the_way(model))
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
    return {unit: nodes for unit, nodes in units.items() if nodes}


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
