"""Streamlined attention: a channel gate at the end of every residual block.

``original``: ``SAM(x) = x * W·GAP(x)``; ``identity``: ``x * (1 + W·GAP(x))`` with W started at zero, so that a
network begins as the plain ResNet whose weights it was given; ``bounded``: ``x * (1 + tanh(W·GAP(x)))``, W started at
zero too, whose factors stay between 0 and 2; ``none``: x itself, no attention, to compare with.  GAP is the mean over
height and width, W one linear layer C -> C without bias.

``original`` is a polynomial of degree 2 in x, a form of second-order pooling (P. Li et al., "Is Second-order
Information Helpful for Large-scale Visual Recognition?", ICCV 2017) without their covariance and its power.
Squeeze-and-excitation (Hu et al. 2018, arXiv:1709.01507) has two layers and a sigmoid in place of W.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.nn import functional as F

from samdeploy.errors import InputError, unknown

GATES = ("original", "identity", "bounded", "none")


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
        if gate != "original":
            nn.init.zeros_(self.fc.weight)
        if gate == "bounded":
            self.squash = nn.Tanh()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        if self.gate == "none":
            return x
        if torch.is_grad_enabled() and x.requires_grad and not torch.compiler.is_compiling():
            gated: torch.Tensor = _Gated.apply(x, self.fc.weight, self)
            return gated
        return x * self.factor(_mean(x))[:, :, None, None]

    def factor(self, mean: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        """What the channels are multiplied by: their means [N, C] -> [N, C]; `weight` [C, C] stands in for W."""
        factor: torch.Tensor
        factor = self.fc(mean) if weight is None else functional_call(self.fc, {"weight": weight}, (mean,))
        if self.gate == "bounded":
            factor = self.squash(factor)
        return factor if self.gate == "original" else factor + 1


class _Gated(torch.autograd.Function):
    """The gate and its gradients, all in the layout of x.

    Autograd by itself writes the mean's gradient out at full size, in a layout that is not channels-last, and adds it
    across the layouts: at 64 pixels and batch 64 that was an eighth of SAM-ResNet-50's whole step in bf16.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, gate: StreamlinedAttention) -> torch.Tensor:
        ctx.dtype, ctx.gate, kind = weight.dtype, gate.gate, x.device.type
        if torch.is_autocast_enabled(kind):  # once for both passes
            weight = weight.to(torch.get_autocast_dtype(kind))
        mean = _mean(x)
        factor = gate.factor(mean, weight)
        ctx.save_for_backward(x, weight, mean, factor)
        return x * factor[:, :, None, None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        x, weight, mean, factor = ctx.saved_tensors
        grad_factor = _sum(grad * x).to(weight.dtype)
        if ctx.gate == "bounded":
            grad_factor = grad_factor * (1 - (factor.to(weight.dtype) - 1) ** 2)  # of tanh
        grad_weight = (grad_factor.T @ mean.to(weight.dtype)).to(ctx.dtype)
        grad_mean = (grad_factor @ weight).to(x.dtype) / (x.shape[2] * x.shape[3])
        # Rounded twice, as autograd would: the same weights come of the same training in float32.
        grad_x = (grad * factor[:, :, None, None].to(x.dtype)).add_(grad_mean[:, :, None, None])
        return grad_x, grad_weight, None


def _mean(x: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] -> [N, C]."""
    if x.dtype == torch.bfloat16 and x.device.type == "cpu" and not torch.compiler.is_compiling():
        # Up to 25 times as fast as `mean`, which first writes all of x out as float32.
        return F.avg_pool2d(x, x.shape[2:]).flatten(1)
    return x.mean(dim=(2, 3))


def _sum(x: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] -> [N, C]; never by way of the mean in fp16, where that may be too small to be written."""
    return _mean(x) * (x.shape[2] * x.shape[3]) if x.dtype == torch.bfloat16 else x.sum(dim=(2, 3))
