"""Types and shapes of a graph's tensors."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import onnx.helper
import onnx.shape_inference

from samdeploy.errors import ExportError

# Constants with more elements are weights: no shape depends on their values, and copying them takes time.
_SMALL = 1024


@dataclass(frozen=True, slots=True)
class Tensor:
    """Element type, as in `onnx.TensorProto`, and shape for a batch of 1; a length that is not known is 0."""

    type: int
    shape: tuple[int, ...]


def infer_tensors(model: onnx.ModelProto) -> dict[str, Tensor]:
    """Every tensor of a graph: its input, its constants and what its nodes make.

    Raises:
        ExportError: ONNX cannot infer them.
    """
    skeleton = _without_weights(model)
    skeleton.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, strict_mode=True, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise ExportError(f"graph: ONNX cannot infer its shapes ({error})") from None
    found = {tensor.name: Tensor(tensor.data_type, tuple(tensor.dims)) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        kind = value.type.tensor_type
        found[value.name] = Tensor(kind.elem_type, tuple(axis.dim_value for axis in kind.shape.dim))
    return found


def float_tensors(model: onnx.ModelProto) -> list[str]:
    """The FP32 tensors that nodes make, in the order of the graph."""
    tensors = infer_tensors(model)
    made = (name for node in model.graph.node for name in node.output if name)
    return [name for name in made if tensors[name].type == onnx.TensorProto.FLOAT]


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which weights are inputs, and no shape stands that a batch of 1 could contradict."""
    weights = [tensor for tensor in model.graph.initializer if _size(tensor) > _SMALL]
    rest = [tensor for tensor in model.graph.initializer if _size(tensor) <= _SMALL]
    skeleton = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    skeleton.graph.name = model.graph.name
    skeleton.graph.node.extend(model.graph.node)
    skeleton.graph.initializer.extend(rest)
    skeleton.graph.input.extend(model.graph.input)
    skeleton.graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in weights
    )
    skeleton.graph.output.extend(onnx.helper.make_empty_tensor_value_info(value.name) for value in model.graph.output)
    return skeleton


def _size(tensor: onnx.TensorProto) -> int:
    size = 1
    for length in tensor.dims:
        size *= length
    return size
