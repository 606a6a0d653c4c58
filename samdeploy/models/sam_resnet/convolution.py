"""A convolution that learns in bf16 on a CPU without spending most of the step on rearranging its weights.

oneDNN's bf16 convolutions want the weights, and give their gradient, in an order of their own.  To change it costs 15
to 20 ns a weight and pass, whatever the images' size: for 2048 x 512 x 1 x 1 on 128 images of 2x2, 15 ms of the
gradient's 15.  There the same sums are a matrix product of rows of pixels, in the order that the weights have anyway,
in 0.9 ms.  With 3x3 kernels the pixels have to be copied for that nine times; where images are large and weights
few, oneDNN's own way is the faster one and stays.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Of a 3x3 kernel: pixels of the batch for each channel made of them up to which the product is the faster way.  From
# `benchmarks/training/convolutions.py` on a Xeon with AMX; with 1x1 kernels nothing is copied, and it always is.
PIXELS_A_CHANNEL = 2
PIXELS_A_CHANNEL_FOR_WEIGHTS = 32  # their gradient is the dearest to rearrange


class Conv2d(nn.Conv2d):
    """PyTorch's, square and without bias, groups or dilation; differs in how bf16 on a CPU computes what it learns."""

    def __init__(self, in_channels: int, out_channels: int, size: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, size, stride=stride, padding=size // 2, bias=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H / stride, W / stride]."""
        if (
            input.device.type == "cpu"
            and torch.is_grad_enabled()
            and input.requires_grad
            and torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") == torch.bfloat16
            and not torch.compiler.is_compiling()
        ):
            learning: torch.Tensor = _Convolution.apply(input, self.weight, self.stride[0])
            return learning
        return super().forward(input)


class _Convolution(torch.autograd.Function):
    """In bf16; the gradients too, which autograd brings into the types of what they belong to."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
        ctx.stride = stride
        x, weight = x.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(x, weight)
        channels, size = weight.shape[0], weight.shape[2]
        height, width = ((side - 1) // stride + 1 for side in x.shape[2:])
        if not _by_product(len(x) * height * width, channels, size, PIXELS_A_CHANNEL):
            return F.conv2d(x, weight, stride=stride, padding=size // 2)
        y = _patches(x, size, stride) @ _kernels(weight).T
        return y.view(len(x), height, width, channels).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        x, weight = ctx.saved_tensors
        stride: int = ctx.stride
        want_x, want_weight, _ = ctx.needs_input_grad
        pixels, size = grad[:, 0].numel(), weight.shape[2]
        product_x = (size == 1 or stride == 1) and _by_product(pixels, x.shape[1], size, PIXELS_A_CHANNEL)
        product_weight = _by_product(pixels, grad.shape[1], size, PIXELS_A_CHANNEL_FOR_WEIGHTS)
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad, x, weight, None, [stride] * 2, [size // 2] * 2, [1, 1], False, [0, 0], 1,
            [want_x and not product_x, want_weight and not product_weight, False],
        )  # fmt: skip
        if want_x and product_x:
            grad_x = _grad_x(grad, x, weight, stride)
        if want_weight and product_weight:
            product = _pixels(grad).T @ _patches(x, size, stride)
            grad_weight = product.view(weight.shape[0], size, size, weight.shape[1]).permute(0, 3, 1, 2)
        return grad_x, grad_weight, None


def _by_product(pixels: int, channels: int, size: int, limit: int) -> bool:
    """Whether a pass over so many pixels that makes so many channels is a product of matrices."""
    return size == 1 or pixels <= limit * channels


def _grad_x(grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
    """The gradient of `x`: of stride 1, or of size 1."""
    n, channels, height, width = x.shape
    if weight.shape[2] > 1:  # a convolution again, with the kernel turned about
        turned = _last(weight).flip(1, 2).permute(1, 2, 0, 3).reshape(-1, channels)
        product = _patches(grad, weight.shape[2], 1) @ turned
    else:
        product = _pixels(grad) @ _kernels(weight)
    if stride == 1:
        return product.view(n, height, width, channels).permute(0, 3, 1, 2)
    spread = torch.zeros_like(x, memory_format=torch.channels_last)
    _last(spread)[:, ::stride, ::stride] = product.view(n, *grad.shape[2:], channels)
    return spread


def _patches(x: torch.Tensor, size: int, stride: int) -> torch.Tensor:
    """[N, C, H, W] -> [N * H / stride * W / stride, size * size * C]: what each place of the kernel sees."""
    if size > 1:
        x = F.pad(x, [size // 2] * 4)
    x = _last(x).contiguous()
    n, height, width, channels = x.shape
    seen = x.as_strided(
        (n, (height - size) // stride + 1, (width - size) // stride + 1, size, size, channels),
        (x.stride(0), stride * x.stride(1), stride * x.stride(2), *x.stride()[1:]),
    )
    return seen.reshape(-1, size * size * channels)


def _pixels(x: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] -> [N * H * W, C]."""
    return _last(x).reshape(-1, x.shape[1])


def _kernels(weight: torch.Tensor) -> torch.Tensor:
    """[O, C, size, size] -> [O, size * size * C], in the order of `_patches`."""
    return _last(weight).reshape(len(weight), -1)


def _last(x: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] -> [N, H, W, C]."""
    return x.permute(0, 2, 3, 1)
