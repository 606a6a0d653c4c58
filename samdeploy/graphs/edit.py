"""Reading, changing and writing ONNX graphs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx
import onnx.checker
import onnx.helper
import onnx.numpy_helper
from numpy.typing import NDArray

from samdeploy.errors import ExportError


def make_node(op: str, name: str, inputs: list[str], output: str | None = None, **attributes: Any) -> onnx.NodeProto:
    """A node with one output, which is called after the node unless it has a name of its own."""
    return onnx.helper.make_node(op, inputs, [output or name], name=name, **attributes)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of an attribute; `default` where the node lacks it."""
    found = next((entry for entry in node.attribute if entry.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)


def constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Weights and other constants, by name, in the order of the file."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def integers(model: onnx.ModelProto, name: str) -> list[int] | None:
    """The constant `name` as a list; None where no such constant is in the file."""
    found = constants(model).get(name)
    return None if found is None else [int(value) for value in onnx.numpy_helper.to_array(found).reshape(-1)]


def set_constant(tensor: onnx.TensorProto, array: NDArray[Any]) -> None:
    """Replace type, shape and values of a constant."""
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def fold_transposes(model: onnx.ModelProto) -> None:
    """Store each weight that nodes read transposed as they read it.

    INT8 would quantise the transposed weight like a tensor of the image, with one scale for all channels.
    """
    weights = constants(model)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        if node.op_type == "Transpose" and node.input[0] in weights:
            array = onnx.numpy_helper.to_array(weights[node.input[0]]).transpose(attribute(node, "perm"))
            model.graph.initializer.append(onnx.numpy_helper.from_array(array.copy("C"), node.output[0]))
        else:
            model.graph.node.append(node)


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """A deep copy."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy whose outputs are the tensors `names`, in this order."""
    copied = copy_of(model)
    del copied.graph.output[:]
    copied.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    return copied


def checked(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` itself.

    Raises:
        ExportError: ONNX's own checker refuses it.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"graph: ONNX's checker refuses it ({error})") from None
    return model


def serialize(model: onnx.ModelProto) -> bytes:
    """The bytes of a model file; equal models give equal bytes.

    Raises:
        ExportError: above 2 GiB, the limit of one protobuf file.
    """
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except ValueError as error:
        raise ExportError(f"graph: larger than the 2 GiB that one ONNX file can hold ({error})") from None
