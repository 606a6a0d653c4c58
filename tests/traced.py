"""A network that is no SAM-ResNet, and its graph."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import onnx
import onnx.numpy_helper
import torch
from torch import nn

from samdeploy.bundle.spec import Preprocessing, model_spec
from samdeploy.export.network import Network, prepare_network
from samdeploy.graphs.edit import constants, copy_of, set_constant
from samdeploy.models import build_model
from samdeploy.models.graph import Normalize

SPEC = model_spec("torchvision:resnet18", {}, tuple(f"class {i}" for i in range(10)), Preprocessing(64, 96))


@functools.cache
def torchvision_resnet18() -> Network:
    """torchvision's ResNet-18 with random weights and activations of a plausible size."""
    torch.manual_seed(5)
    net = build_model(SPEC.arch, len(SPEC.classes))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.2)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            module.momentum = 1.0  # the statistics of the one batch below
    with torch.no_grad():
        net.train()(Normalize(SPEC.preprocessing)(torch.from_numpy(images())))
    return prepare_network(net, SPEC)


def images(count: int = 12) -> np.ndarray:
    """uint8 [count, 64, 96, 3]."""
    return np.random.default_rng(9).integers(0, 256, (count, 64, 96, 3), dtype=np.uint8)


def changed_constant(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
    """A copy of `model` in which the constant `name` went through `change`."""
    copy = copy_of(model)
    tensor = constants(copy)[name]
    set_constant(tensor, np.ascontiguousarray(change(onnx.numpy_helper.to_array(tensor))))
    return copy
