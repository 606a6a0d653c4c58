"""Whether a graph can be run in a machine's memory, known from its shapes alone."""

from __future__ import annotations

import math

import onnx
import onnx.helper
import onnx.shape_inference

from samdeploy.errors import InputError, first_line

# Numbers in one tensor, 1 GiB in FP32.  The largest of ResNet-50 for 256 images of 224 pixels has 0.2 billion; a file
# of a few bytes can ask for any number.
_MOST_NUMBERS = 1 << 28
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
            raise InputError(
                f"its tensor {value.name} {shape} is too large to compute; export it for one image, or with a dynamic "
                "batch"
            )


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
