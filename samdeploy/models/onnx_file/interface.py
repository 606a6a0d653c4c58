"""What a network in an ONNX file takes and gives."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from samdeploy.errors import InputError
from samdeploy.graphs.edit import attribute, constants

OWN_DOMAINS = ("", "ai.onnx")
_SAME = ("Identity", "Flatten", "Squeeze", "Reshape")
_FIXED_SHAPE = "python -m onnxruntime.tools.make_dynamic_shape_fixed --input_name {} --input_shape 1,3,224,224 IN OUT"


@dataclass(frozen=True, slots=True)
class Interface:
    """The ends of a network.

    Attributes:
        input: name of the images, float32, normalised.
        batch: images per run; None where any number is taken.
        height, width: of the images, in pixels.
        channels_last: they are [N, H, W, 3], not [N, 3, H, W].
        logits: name of the tensor before the last Softmax.
        squashed_by: "Softmax" or "LogSoftmax", which is left out; None where the output is the logits.
    """

    input: str
    batch: int | None
    height: int
    width: int
    channels_last: bool
    logits: str
    squashed_by: str | None

    def __str__(self) -> str:
        batch = "N" if self.batch is None else str(self.batch)
        sides = f"{self.height}, {self.width}, 3" if self.channels_last else f"3, {self.height}, {self.width}"
        return f"images float32 [{batch}, {sides}]"


def interface_of(model: onnx.ModelProto) -> Interface:
    """Read from the file's own declarations.

    Raises:
        InputError: not one float32 image and one output, of fixed height and width.
    """
    weights = constants(model)
    inputs = [value for value in model.graph.input if value.name not in weights]
    for kind, values in (("input", inputs), ("output", list(model.graph.output))):
        if len(values) != 1:
            listed = ", ".join(value.name for value in values[:5])
            raise InputError(f"has {len(values)} {kind}s ({listed}); a classifier with one is expected")
        _check_float(kind, values[0])
    batch, *rest = _lengths(inputs[0])
    if len(rest) != 3 or 3 not in (rest[0], rest[2]):
        raise InputError(f"its input {_shape(inputs[0])}; [N, 3, H, W] or [N, H, W, 3] expected, RGB")
    if rest[0] == rest[2] == 3:
        raise InputError(f"its input {_shape(inputs[0])}, so it is not clear which axis is RGB")
    channels_last = rest[2] == 3
    height, width = (rest[0], rest[1]) if channels_last else (rest[1], rest[2])
    if height is None or width is None:
        raise InputError(
            f"its input {_shape(inputs[0])}, of no fixed height and width; fix them: "
            f"{_FIXED_SHAPE.format(inputs[0].name)}"
        )
    logits, squashed_by = _logits(model)
    return Interface(inputs[0].name, batch, height, width, channels_last, logits, squashed_by)


def opset_of(model: onnx.ModelProto) -> int:
    """Version of ONNX's own operators; 0 where the file does not say."""
    return next((entry.version for entry in model.opset_import if entry.domain in OWN_DOMAINS), 0)


def own_normalisation(model: onnx.ModelProto) -> list[str]:
    """Operators at the start that add or multiply by constants, as in a graph that normalises its images itself."""
    known, name, found = constants(model), interface_of(model).input, []
    fixed = known.keys() | {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    while len(readers := [node for node in model.graph.node if name in node.input]) == 1:
        (node,) = readers
        if node.op_type in ("Sub", "Div", "Mul", "Add") and set(node.input) - {name} <= fixed:
            found.append(node.op_type)
        elif node.op_type not in ("Transpose", "Identity", "Cast"):
            break
        name = node.output[0]
    return found


def _logits(model: onnx.ModelProto) -> tuple[str, str | None]:
    """The output, or what a Softmax at the end reads."""
    makers = {name: node for node in model.graph.node for name in node.output}
    output = name = model.graph.output[0].name
    while name in makers and makers[name].op_type in _SAME:
        name = makers[name].input[0]
    node = makers.get(name)
    if node is None or node.op_type not in ("Softmax", "LogSoftmax", "Sigmoid"):
        return output, None
    if node.op_type == "Sigmoid":
        raise InputError(
            "ends in Sigmoid, so its classes do not exclude one another; a classifier with one answer per image is "
            "expected"
        )
    if attribute(node, "axis", -1) not in (-1, 1):
        raise InputError(f"its {node.op_type} is over axis {attribute(node, 'axis')}; the classes' axis expected")
    return node.input[0], node.op_type


def _check_float(kind: str, value: onnx.ValueInfoProto) -> None:
    if value.type.WhichOneof("value") != "tensor_type":
        raise InputError(f"its {kind} {value.name} is no tensor; float32 expected")
    found = value.type.tensor_type.elem_type
    if found == onnx.TensorProto.FLOAT:
        return
    cure = ""
    if kind == "input" and found == onnx.TensorProto.UINT8:
        cure = "; export the network without its preprocessing"
    name = onnx.TensorProto.DataType.Name(found).lower()
    raise InputError(f"its {kind} {value.name} is {name}; float32 expected{cure}")


def _lengths(value: onnx.ValueInfoProto) -> list[int | None]:
    """Of each axis; None where it is not fixed."""
    return [axis.dim_value if axis.dim_value > 0 else None for axis in value.type.tensor_type.shape.dim]


def _shape(value: onnx.ValueInfoProto) -> str:
    axes = [str(axis.dim_value or axis.dim_param or "?") for axis in value.type.tensor_type.shape.dim]
    return f"{value.name} is [{', '.join(axes)}]"
