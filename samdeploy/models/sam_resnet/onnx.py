"""The FP32 graph of a folded network: uint8 NHWC pixels in, float32 logits out, dynamic batch, one file.

The graph is written node by node rather than traced.  The architecture is a single family, and writing it out gives
what a tracer cannot promise over several releases: the same bytes for the same weights, every node named after its
layer ("layer3.2.conv2"), and gates in the form that runs fastest: as a Gemm, which reads its weights once for a batch,
while a 1x1 convolution of [N, C, 1, 1] reads them once for each image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import torch
from torch import nn

import samdeploy
from samdeploy.bundle.spec import ModelSpec
from samdeploy.graphs.edit import checked, make_node
from samdeploy.graphs.pixels import NORMALISED, pixel_nodes
from samdeploy.models.sam_resnet.fold import FoldedBlock, FoldedResNet

# Opset 17 and IR 8 hold every operator used here and are read by every runtime release that samdeploy supports.
OPSET = 17
IR_VERSION = 8


def graph_from_model(net: FoldedResNet, spec: ModelSpec) -> onnx.ModelProto:
    """`net` as ONNX.

    Args:
        net: the folded network.
        spec: names and shapes of input and output, and the normalisation.

    Raises:
        ExportError: ONNX's own checker refuses the graph.
    """
    writer = _Writer(spec)
    x = writer.conv("stem", net.stem, NORMALISED, relu=True)
    if isinstance(net.maxpool, nn.MaxPool2d):
        x = writer.node("MaxPool", "maxpool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for name, block in net.blocks():
        x = _block(writer, name, block, x)
    x = writer.node("GlobalAveragePool", "pool", [x])
    x = writer.node("Flatten", "flatten", [x], axis=1)
    writer.linear("head", net.head, x, spec.output.name)
    return writer.model()


def _block(writer: _Writer, name: str, block: FoldedBlock, x: str) -> str:
    """See `FoldedBlock.forward`."""
    *inner, last = block.convs
    hidden = x
    for index, conv in enumerate(inner, start=1):
        hidden = writer.conv(f"{name}.conv{index}", conv, hidden, relu=True)
    y = writer.conv(f"{name}.conv{len(inner) + 1}", last, hidden)
    if block.gate is not None:
        mean = writer.node("GlobalAveragePool", f"{name}.mean", [y if block.gate_reads_output else hidden])
        mean = writer.node("Flatten", f"{name}.flatten", [mean], axis=1)
        gate = writer.linear(f"{name}.gate", block.gate, mean)
        if block.is_bounded:
            gate = writer.node("Tanh", f"{name}.tanh", [gate])
            gate = writer.node("Add", f"{name}.factor", [gate, writer.constant("one", np.ones(1, np.float32))])
        axes = writer.constant("spatial", np.array([2, 3], np.int64))
        gate = writer.node("Unsqueeze", f"{name}.unsqueeze", [gate, axes])
        y = writer.node("Mul", f"{name}.gated", [y, gate])
    skip = x if block.downsample is None else writer.conv(f"{name}.downsample", block.downsample, x)
    total = writer.node("Add", f"{name}.sum", [y, skip])
    return writer.node("Relu", f"{name}.relu", [total])


class _Writer:
    """Collects nodes and weights; every tensor is called after the node that makes it, the logits apart."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._nodes, self._weights = pixel_nodes(spec.input.name, spec.preprocessing)

    def node(self, op: str, name: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        self._nodes.append(make_node(op, name, inputs, output, **attributes))
        return output or name

    def weights(self, name: str, layer: nn.Module) -> list[str]:
        """Weight and bias of a convolution or linear layer."""
        found = {f"{name}.{part}": getattr(layer, part) for part in ("weight", "bias")}
        for part, value in found.items():
            array = value.detach().to("cpu", torch.float32).contiguous().numpy()
            self._weights.append(onnx.numpy_helper.from_array(array, part))
        return list(found)

    def constant(self, name: str, values: np.ndarray[Any, Any]) -> str:
        """What several nodes may read."""
        if all(tensor.name != name for tensor in self._weights):
            self._weights.append(onnx.numpy_helper.from_array(values, name))
        return name

    def linear(self, name: str, layer: nn.Module, x: str, output: str | None = None) -> str:
        return self.node("Gemm", name, [x, *self.weights(name, layer)], output, transB=1)

    def conv(self, name: str, conv: nn.Module, x: str, *, relu: bool = False) -> str:
        assert isinstance(conv, nn.Conv2d)
        pad = int(conv.padding[0])
        x = self.node(
            "Conv",
            name,
            [x, *self.weights(name, conv)],
            kernel_shape=list(conv.kernel_size),
            strides=list(conv.stride),
            pads=[pad, pad, pad, pad],
        )
        return self.node("Relu", f"{name}.relu", [x]) if relu else x

    def model(self) -> onnx.ModelProto:
        spec = self._spec
        image = onnx.helper.make_tensor_value_info(spec.input.name, onnx.TensorProto.UINT8, spec.input.shape)
        logits = onnx.helper.make_tensor_value_info(spec.output.name, onnx.TensorProto.FLOAT, spec.output.shape)
        graph = onnx.helper.make_graph(self._nodes, spec.arch, [image], [logits], self._weights)
        return checked(
            onnx.helper.make_model(
                graph,
                opset_imports=[onnx.helper.make_opsetid("", OPSET)],
                ir_version=IR_VERSION,
                producer_name="samdeploy",
                producer_version=samdeploy.__version__,
            )
        )
