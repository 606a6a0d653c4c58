"""The ONNX graph of a folded network: uint8 NHWC pixels in, float32 logits out, dynamic batch, one file.

The graph is written node by node rather than traced.  The architecture is a single family, and writing it out gives
what a tracer cannot promise over several releases: the same bytes for the same weights, every node named after its
layer ("layer3.2.conv2"), a type chosen for each tensor, and gates in the form that every parser fuses
(GlobalAveragePool, 1x1 Conv, Mul).  Each export is compared with PyTorch before it is used (`samdeploy.export.check`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import numpy as np
import onnx
import onnx.checker
import onnx.helper
import onnx.numpy_helper
import torch
from numpy.typing import NDArray
from torch import nn

import samdeploy
from samdeploy.bundle.spec import ModelSpec, TensorSpec, cam_spec
from samdeploy.errors import ExportError
from samdeploy.graphs.pixels import NORMALISED, pixel_nodes
from samdeploy.models import FoldedResNet
from samdeploy.models.sam_resnet.fold import FoldedBlock

GraphPrecision = Literal["fp32", "fp16"]

# Opset 17 and IR 8 hold every operator used here and are read by every runtime release that samdeploy supports.
OPSET = 17
IR_VERSION = 8

_TYPES: dict[GraphPrecision, tuple[int, np.dtype[np.floating[Any]]]] = {
    "fp32": (onnx.TensorProto.FLOAT, np.dtype(np.float32)),
    "fp16": (onnx.TensorProto.FLOAT16, np.dtype(np.float16)),
}


def graph_from_model(
    net: FoldedResNet, spec: ModelSpec, precision: GraphPrecision, fp32: Collection[str] = ()
) -> onnx.ModelProto:
    """`net` as ONNX, with the arithmetic of every layer in `precision`, but for the layers named in `fp32`.

    Pixels are normalised in float32 in both precisions: the values 0..255 times 1/(255 std) lose bits in FP16, and
    the layer is tiny.

    Args:
        net: the folded network.
        spec: names and shapes of input and output, and the normalisation.
        precision: of all layers but those in `fp32`.
        fp32: "stem", "head" or blocks such as "layer2.0".

    Raises:
        ExportError: a weight does not fit into `precision`, or ONNX's own checker refuses the graph.
    """
    writer = _Writer(precision, fp32)
    x = _features(writer, net, spec)
    x = writer.node("GlobalAveragePool", "pool", [writer.enter("head", x)])
    x = writer.node("Flatten", "flatten", [x], axis=1)
    if writer.precision == "fp32":
        writer.linear("head", net.head, x, output="logits")
    else:
        writer.node("Cast", "logits", [writer.linear("head", net.head, x)], to=onnx.TensorProto.FLOAT)
    return writer.model(spec, spec.output)


def cam_graph_from_model(net: FoldedResNet, spec: ModelSpec) -> onnx.ModelProto:
    """`net` in FP32 with its class activation maps: outputs `logits` [N, K] and `cam` [N, K, h, w].

    ``CAM_k(h, w) = w_k . features(h, w)`` (Zhou et al. 2016, "Learning deep features for discriminative
    localization"), which is the head as a 1x1 convolution.  The mean and the linear head commute, so
    ``logits_k = mean(CAM_k) + b_k``, and that is how the graph forms its logits: an engine whose logits are right has
    maps that add up to them.

    Args:
        net: the folded network, whose head is one linear layer.
        spec: names and shapes of input and logits, and the normalisation.

    Raises:
        ExportError: a weight is not finite, or ONNX's own checker refuses the graph.
    """
    writer = _Writer("fp32", ())
    x = _features(writer, net, spec)
    weight = writer.weight("head.weight", net.head.weight[:, :, None, None])
    maps = writer.node("Conv", cam_spec(spec).name, [x, weight], kernel_shape=[1, 1])
    mean = writer.node("GlobalAveragePool", "cam.mean", [maps])
    mean = writer.node("Flatten", "cam.flat", [mean], axis=1)
    writer.node("Add", "head", [mean, writer.weight("head.bias", net.head.bias)], output="logits")
    return writer.model(spec, spec.output, cam_spec(spec))


def serialize(model: onnx.ModelProto) -> bytes:
    """The bytes of a model file; equal models give equal bytes.

    Raises:
        ExportError: above 2 GiB, the limit of one protobuf file.
    """
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except ValueError as error:
        raise ExportError(f"graph: larger than the 2 GiB that one ONNX file can hold ({error})") from None


def _features(writer: _Writer, net: FoldedResNet, spec: ModelSpec) -> str:
    """From the pixels to the last stage's output."""
    x = writer.enter("stem", writer.pixels(spec))
    x = writer.conv("stem", net.stem, x, relu=True)
    x = writer.node("MaxPool", "maxpool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for name, block in net.blocks():
        x = _block(writer, name, block, writer.enter(name, x))
    return x


def _block(writer: _Writer, name: str, block: FoldedBlock, x: str) -> str:
    """See `FoldedBlock.forward`."""
    *inner, last = block.convs
    hidden = x
    for index, conv in enumerate(inner, start=1):
        hidden = writer.conv(f"{name}.conv{index}", conv, hidden, relu=True)
    y = writer.conv(f"{name}.conv{len(inner) + 1}", last, hidden)
    if block.gate is not None:
        mean = writer.node("GlobalAveragePool", f"{name}.mean", [y if block.gate_reads_output else hidden])
        gate = writer.conv(f"{name}.gate", block.gate, mean)
        y = writer.node("Mul", f"{name}.gated", [y, gate])
    skip = x if block.downsample is None else writer.conv(f"{name}.downsample", block.downsample, x)
    total = writer.node("Add", f"{name}.sum", [y, skip])
    return writer.node("Relu", f"{name}.relu", [total])


class _Writer:
    """Collects nodes and weights; every tensor is called after the node that makes it, the logits apart."""

    def __init__(self, precision: GraphPrecision, fp32: Collection[str]) -> None:
        self.precision: GraphPrecision = "fp32"  # of the layer being written; the pixels come first
        self._wanted = precision
        self._fp32 = fp32
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def enter(self, layer: str, x: str) -> str:
        """Begin a layer whose input is `x`; returns `x` in the layer's precision."""
        precision = "fp32" if layer in self._fp32 else self._wanted
        if precision == self.precision:
            return x
        self.precision = precision
        return self.node("Cast", f"{layer}.cast", [x], to=_TYPES[precision][0])

    def node(self, op: str, name: str, inputs: list[str], *, output: str | None = None, **attributes: Any) -> str:
        output = output or name
        self._nodes.append(onnx.helper.make_node(op, inputs, [output], name=name, **attributes))
        return output

    def constant(self, name: str, array: NDArray[Any]) -> str:
        self._weights.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def weight(self, name: str, value: torch.Tensor) -> str:
        exact = value.detach().double().cpu().numpy()
        dtype = _TYPES[self.precision][1]
        with np.errstate(over="ignore"):  # reported below, with the layer's name
            array = exact.astype(dtype)
        if not np.isfinite(array).all():
            raise ExportError(
                f"{name}: |weight| up to {np.abs(exact).max():.4g} found, {self.precision} ends at "
                f"{np.finfo(dtype).max:.0f}; export with --precision fp32"
            )
        return self.constant(name, array)

    def pixels(self, spec: ModelSpec) -> str:
        """The normalisation; float32 in both precisions."""
        nodes, constants = pixel_nodes(spec.input.name, spec.preprocessing)
        self._nodes += nodes
        self._weights += constants
        return NORMALISED

    def conv(self, name: str, conv: nn.Module, x: str, *, relu: bool = False) -> str:
        assert isinstance(conv, nn.Conv2d) and conv.bias is not None
        weights = [self.weight(f"{name}.weight", conv.weight), self.weight(f"{name}.bias", conv.bias)]
        pad = int(conv.padding[0])
        x = self.node(
            "Conv",
            name,
            [x, *weights],
            kernel_shape=list(conv.kernel_size),
            strides=list(conv.stride),
            pads=[pad, pad, pad, pad],
        )
        return self.node("Relu", f"{name}.relu", [x]) if relu else x

    def linear(self, name: str, linear: nn.Linear, x: str, *, output: str | None = None) -> str:
        weights = [self.weight(f"{name}.weight", linear.weight), self.weight(f"{name}.bias", linear.bias)]
        return self.node("Gemm", name, [x, *weights], output=output, transB=1)

    def model(self, spec: ModelSpec, *outputs: TensorSpec) -> onnx.ModelProto:
        image = onnx.helper.make_tensor_value_info(spec.input.name, onnx.TensorProto.UINT8, spec.input.shape)
        answers = [
            onnx.helper.make_tensor_value_info(tensor.name, onnx.TensorProto.FLOAT, tensor.shape) for tensor in outputs
        ]
        graph = onnx.helper.make_graph(self._nodes, spec.arch, [image], answers, self._weights)
        model = onnx.helper.make_model(
            graph,
            opset_imports=[onnx.helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="samdeploy",
            producer_version=samdeploy.__version__,
        )
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ExportError(f"graph: ONNX's checker refuses it ({error})") from None
        return model
