"""Networks for export tests: random weights, but activations of a plausible size."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from samdeploy.bundle.spec import ModelSpec, Preprocessing, model_spec
from samdeploy.models import build_model
from samdeploy.models.graph import Normalize
from samdeploy.models.sam_resnet.resnet import SamResNet

CLASSES = 10


@pytest.fixture(scope="session")
def spec_of() -> Callable[[str, str], ModelSpec]:
    """(arch, gate) -> the spec of a 32x32 classifier of ten classes."""
    classes = tuple(f"class {index}" for index in range(CLASSES))
    return lambda arch, gate: model_spec(arch, {"gate": gate}, classes, Preprocessing(32, 32))


@pytest.fixture(scope="session")
def network(examples) -> Callable[[str, str], SamResNet]:
    """(arch, gate) -> a network in eval mode whose batch norms hold the statistics of `images`."""

    @functools.cache
    def make(arch: str, gate: str) -> SamResNet:
        torch.manual_seed(7)
        net = build_model(arch, CLASSES, {"gate": gate})
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.2)
                nn.init.uniform_(module.bias, -0.2, 0.2)
                module.momentum = 1.0  # the statistics of the one batch below
        for name, parameter in net.named_parameters():
            if ".sl." in name:
                nn.init.normal_(parameter, std=0.2 / parameter.shape[0] ** 0.5)
        net.train()
        with torch.no_grad():
            net(Normalize(Preprocessing(32, 32))(torch.from_numpy(examples)))
        return net.eval()

    return make


@pytest.fixture(scope="session")
def examples() -> np.ndarray:
    """Sixteen random images, uint8 [16, 32, 32, 3]."""
    return np.random.default_rng(3).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
