"""Whether a graph can be run in a machine's memory, known from its shapes alone."""

from __future__ import annotations

import math
from collections.abc import Iterable

import onnx
import onnx.helper
import onnx.shape_inference

from samdeploy.errors import InputError, first_line

# Numbers in one tensor, 1 GiB in FP32.  The largest of ResNet-50 for 256 images of 224 pixels has 0.2 billion; a file
# of a few bytes can ask for any number.
_MOST_NUMBERS = 1 << 28
# The largest classifiers have some ten thousand; those of PyTorch's modules are at most ten functions deep.
_MOST_NODES, _DEEPEST = 1_000_000, 100
# Weights with more numbers are never shapes, and inference needs no more than their own.
_SHAPE_NUMBERS = 64


def check_sizes(model: onnx.ModelProto) -> None:
    """Refuse a graph that takes or makes a larger tensor for one image, or for as many as it was written for.

    Raises:
        InputError: with the tensor, or its shapes cannot be inferred.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(_without_weights(model), data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise InputError(f"the shapes of its tensors cannot be told ({first_line(error)})") from None
    for value in (*model.graph.input, *inferred.value_info, *inferred.output):
        shape = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        # An axis of no known length, as that of the images mostly is, counts as one.
        if math.prod(length for length in shape if length > 0) > _MOST_NUMBERS:
            listed = ", ".join(str(length or "?") for length in shape)
            raise InputError(
                f"its tensor {value.name} [{listed}] is too large to compute; export it for one image, or with a "
                "dynamic batch"
            )


def check_functions(model: onnx.ModelProto) -> None:
    """Refuse functions that call others so often that no memory holds them written out, or themselves.

    Raises:
        InputError: they do.
    """
    nodes = {(function.domain, function.name, function.overload): function.node for function in model.functions}
    sizes: dict[tuple[str, str, str], int] = {}

    def written_out(body: Iterable[onnx.NodeProto], depth: int) -> int:
        return sum(size(node, depth) for node in body)

    def size(node: onnx.NodeProto, depth: int) -> int:
        key = (node.domain, node.op_type, node.overload)
        if key not in nodes:
            return 1 + sum(written_out(value.g.node, depth + 1) for value in node.attribute)
        if depth > _DEEPEST:
            raise InputError(f"its function {node.op_type} is too deep; export the network without functions")
        if key not in sizes:
            sizes[key] = written_out(nodes[key], depth + 1)
        return sizes[key]

    if (found := written_out(model.graph.node, 0)) > _MOST_NODES:
        raise InputError(f"has {found} nodes where its functions are written out; export it without functions")


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same nodes, where weights are inputs: inference copies the file."""
    small = [tensor for tensor in model.graph.initializer if math.prod(tensor.dims) <= _SHAPE_NUMBERS]
    large = [tensor for tensor in model.graph.initializer if math.prod(tensor.dims) > _SHAPE_NUMBERS]
    given = {value.name: value for value in model.graph.input}
    given |= {
        tensor.name: onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in large
    }
    graph = onnx.helper.make_graph(model.graph.node, "shapes", list(given.values()), model.graph.output, small)
    return onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
