"""Graphs that torch.onnx.export writes, of networks that samdeploy knows nothing about."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import onnx
import torch
import torchvision
from torch import nn

from samdeploy.bundle.spec import ModelSpec, Preprocessing, model_spec
from samdeploy.graphs.edit import checked, constants, copy_of, set_constant
from samdeploy.graphs.pixels import NORMALISED, pixel_nodes
from samdeploy.models.graph import Normalize

SPEC = model_spec("torchvision:resnet18", {}, tuple(f"class {i}" for i in range(10)), Preprocessing(64, 96))


class _Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3), keepdim=True)


def traced(net: nn.Module, spec: ModelSpec) -> onnx.ModelProto:
    """The FP32 graph of `net` behind the normalisation."""
    size = spec.preprocessing
    program = torch.onnx.export(
        net,
        (torch.zeros(3, 3, size.height, size.width),),
        dynamo=True,
        verbose=False,
        dynamic_shapes=({0: torch.export.Dim("N")},),
        input_names=[NORMALISED],
        output_names=["logits"],
    )
    assert program is not None
    model = program.model_proto
    nodes, constants = pixel_nodes("image", spec.preprocessing)
    nodes += list(model.graph.node)
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(constants)
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, spec.input.shape)
    model.graph.input.append(image)
    return checked(model)


@functools.cache
def torchvision_resnet18() -> tuple[nn.Module, onnx.ModelProto]:
    """torchvision's ResNet-18 with random weights and plausible activations, and its graph for `SPEC`."""
    torch.manual_seed(5)
    net = torchvision.models.resnet18(num_classes=10)
    net.avgpool = _Mean()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.2)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(Normalize(SPEC.preprocessing)(torch.from_numpy(images())))
    return net.eval(), traced(net, SPEC)


def images(count: int = 12) -> np.ndarray:
    """uint8 [count, 64, 96, 3]."""
    return np.random.default_rng(9).integers(0, 256, (count, 64, 96, 3), dtype=np.uint8)


def changed_constant(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
    """A copy of `model` in which the constant `name` went through `change`."""
    copy = copy_of(model)
    tensor = constants(copy)[name]
    set_constant(tensor, np.ascontiguousarray(change(onnx.numpy_helper.to_array(tensor))))
    return copy
