"""From an FP32 graph to FP16."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
import onnx.numpy_helper

from samdeploy.errors import ExportError
from samdeploy.graphs.edit import checked, copy_of, make_node, set_constant
from samdeploy.graphs.layers import find_layers
from samdeploy.graphs.shapes import infer_tensors

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def fp16_graph(model: onnx.ModelProto, fp32: Collection[str] = ()) -> onnx.ModelProto:
    """The graph with weights and tensors of every layer in FP16, but for the layers named in `fp32`.

    Pixels are normalised in FP32 always: the values 0..255 times 1/(255 std) lose bits in FP16, and the layer is tiny.
    Input and outputs keep their types.

    Args:
        model: an FP32 graph.
        fp32: names of `find_layers`.

    Raises:
        ExportError: a weight does not fit into FP16, or ONNX's own checker refuses the graph.
    """
    return checked(convert(model, fp32))


def convert(model: onnx.ModelProto, fp32: Collection[str] = (), *, allow_overflow: bool = False) -> onnx.ModelProto:
    """As `fp16_graph`, unchecked; with `allow_overflow`, weights beyond FP16 become infinite."""
    return _Conversion(model, fp32, allow_overflow).run()


class _Conversion:
    """One graph on its way to FP16."""

    def __init__(self, model: onnx.ModelProto, fp32: Collection[str], allow_overflow: bool) -> None:
        self._model = model
        self._allow_overflow = allow_overflow
        self._floats = {name for name, tensor in infer_tensors(model).items() if tensor.type == FLOAT}
        layers = find_layers(model)
        self._layer = {node: layer.name for layer in (layers.pixels, *layers.network) for node in layer.nodes}
        self._fp32 = {layers.pixels.name, *fp32}
        self._half: set[str] = set()  # tensors in FP16
        self._casts: dict[str, str] = {}  # tensor -> the same in the other type
        self._nodes: list[onnx.NodeProto] = []

    def run(self) -> onnx.ModelProto:
        converted = copy_of(self._model)
        del converted.graph.node[:], converted.graph.value_info[:]
        self._convert_weights(converted)
        for node in self._model.graph.node:
            self._convert_node(node)
        for output in self._model.graph.output:
            if output.name in self._half:
                self._widen(output.name)
        converted.graph.node.extend(self._nodes)
        return converted

    def _is_half(self, node: onnx.NodeProto) -> bool:
        """Nodes that make floats of other types, or of nothing, make them in FP32."""
        return self._layer[node.name] not in self._fp32 and any(name in self._floats for name in node.input)

    def _convert_weights(self, converted: onnx.ModelProto) -> None:
        """Round those that FP16 nodes alone read; the others are cast where they are read."""
        read = {half: {name for node in self._model.graph.node if self._is_half(node) == half for name in node.input}
                for half in (True, False)}  # fmt: skip
        for tensor in converted.graph.initializer:
            if tensor.data_type == FLOAT and tensor.name in read[True] - read[False]:
                self._round(tensor)
                self._half.add(tensor.name)

    def _round(self, tensor: onnx.TensorProto) -> None:
        exact = onnx.numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            array = exact.astype(np.float16)
        if not self._allow_overflow and (np.isinf(array) & np.isfinite(exact)).any():
            raise ExportError(
                f"{tensor.name}: |weight| up to {np.abs(exact).max():.4g} found, fp16 ends at "
                f"{np.finfo(np.float16).max:.0f}; export with --precision fp32"
            )
        set_constant(tensor, array)

    def _convert_node(self, node: onnx.NodeProto) -> None:
        half = self._is_half(node)
        converted = onnx.NodeProto()
        converted.CopyFrom(node)
        for index, name in enumerate(node.input):
            if name in self._floats and (name in self._half) != half:
                converted.input[index] = self._cast(name, self._layer[node.name], HALF if half else FLOAT)
        self._nodes.append(converted)
        if half and node.op_type != "Cast":  # a cast to FP32 stays one
            self._half |= self._floats & set(node.output)

    def _cast(self, name: str, layer: str, to: int) -> str:
        if name not in self._casts:
            cast = f"{layer}.cast"
            self._casts[name] = f"{name}.{cast}" if cast in self._casts.values() else cast
            self._nodes.append(make_node("Cast", self._casts[name], [name], to=to))
        return self._casts[name]

    def _widen(self, output: str) -> None:
        """Make an FP16 output of the graph FP32; the tensor itself is called after its node from now on."""
        maker = next(node for node in self._nodes if output in node.output)
        half = maker.name if maker.name not in self._floats else f"{output}.fp16"
        for node in self._nodes:
            for names in (node.input, node.output):
                names[:] = [half if name == output else name for name in names]
        self._nodes.append(make_node("Cast", output, [half], to=FLOAT))
