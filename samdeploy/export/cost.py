"""Multiply-adds of a folded network, by layer."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from samdeploy.bundle.spec import ModelSpec
from samdeploy.models import FoldedResNet


def multiply_adds(net: FoldedResNet, spec: ModelSpec) -> dict[str, int]:
    """Multiply-adds for one picture in the convolutions and matrix products of "stem", each block, and "head"."""
    layers: dict[str, nn.Module] = {"stem": net.stem, **dict(net.blocks()), "head": net.head}
    counts = dict.fromkeys(layers, 0)

    def count(layer: str, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        # Each output position of each channel sums over one filter.
        counts[layer] += output[0].numel() * weight[0].numel()

    handles = [
        module.register_forward_hook(functools.partial(count, layer))
        for layer, block in layers.items()
        for module in block.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    try:
        with torch.inference_mode():
            net(torch.zeros(1, 3, spec.preprocessing.height, spec.preprocessing.width, dtype=net.stem.weight.dtype))
    finally:
        for handle in handles:
            handle.remove()
    return counts
