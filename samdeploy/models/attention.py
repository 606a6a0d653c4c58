"""Streamlined attention: a channel gate without squashing, at the end of every residual block.

``original``: ``SAM(x) = x * W·GAP(x)``; ``identity``: ``x * (1 + W·GAP(x))`` with W started at zero, so that a
network begins as the plain ResNet whose weights it was given; ``none``: x itself, no attention, to compare with.  GAP
is the mean over height and width, W one linear layer C -> C without bias.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from samdeploy.errors import InputError, unknown

GATES = ("original", "identity", "none")


class StreamlinedAttention(nn.Module):
    """Multiply every channel by a linear function of all channel means.

    The attribute is called `fc` because the original code's weight files hold `...sl.fc.weight`.
    """

    def __init__(self, channels: int, gate: str) -> None:
        super().__init__()
        if gate not in GATES:
            raise InputError(unknown("gate", gate, GATES))
        self.gate = gate
        if gate == "none":
            return
        self.fc = nn.Linear(channels, channels, bias=False)
        if gate == "identity":
            nn.init.zeros_(self.fc.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        if self.gate == "none":
            return x
        x, mean = _with_mean(x)
        weight: torch.Tensor = self.fc(mean)
        if self.gate == "identity":
            weight = weight + 1
        return x * weight[:, :, None, None]


def _with_mean(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[N, C, H, W] -> itself, and its means over height and width [N, C]."""
    if torch.is_grad_enabled() and x.requires_grad and not torch.compiler.is_compiling():
        both: tuple[torch.Tensor, torch.Tensor] = _WithMean.apply(x)
        return both
    return x, x.mean(dim=(2, 3))


class _WithMean(torch.autograd.Function):
    """x and its mean, whose two gradients are added in one pass.

    Autograd by itself writes the mean's gradient out at full size, in a layout that is not channels-last, and adds it
    across the layouts: at 64 pixels and batch 64 that was an eighth of SAM-ResNet-50's whole step in bf16.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.positions = x.shape[2] * x.shape[3]
        return x.view_as(x), x.mean(dim=(2, 3))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_x: torch.Tensor, grad_mean: torch.Tensor) -> torch.Tensor:
        positions: int = ctx.positions
        return grad_x + (grad_mean / positions)[:, :, None, None]
