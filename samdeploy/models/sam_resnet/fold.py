"""The exact fold: the same function as the trained network, with fewer layers and parameters.

Three identities, none of them an approximation:

1. A batch norm after a convolution is a scale and a shift per channel: it goes into the weights and a bias.
2. GAP is linear, so after a 1x1 convolution ``GAP(W3'·h + b3') = W3'·GAP(h) + b3'``.  The gate of a bottleneck
   is therefore ``(W·W3')·GAP(h) + W·b3'``: one small layer from C/4 channels, read from ``h`` instead of from the
   four times larger output.  The ``1 +`` of the identity gate joins that bias; the tanh of the bounded one stays.
3. Linear layers with nothing but dropout between them are one linear layer at inference.

A basic block ends in a 3x3 convolution, whose zero padding makes its mean depend on the border of ``h``; there the
gate keeps reading the convolution's output.

All products are formed in float64 and stored in the model's own dtype.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import nn

from samdeploy.models.sam_resnet.resnet import BasicBlock, Bottleneck, SamResNet


class FoldedBlock(nn.Module):
    """A residual block after the fold.

    Attributes:
        convs: two (basic) or three (bottleneck) convolutions with bias; all but the last end in ReLU.
        gate: linear layer with bias from a mean [N, C'] to the channel weights [N, C]; None without attention.
        is_bounded: the channels are multiplied by one plus tanh of what `gate` gives.
        gate_reads_output: True where the mean is taken of the last convolution's output (basic block), False
            where it is taken of its input (bottleneck).
        downsample: 1x1 convolution with bias on the skip, or None.
    """

    def __init__(
        self,
        convs: list[nn.Conv2d],
        gate: nn.Linear | None,
        downsample: nn.Conv2d | None,
        *,
        gate_reads_output: bool,
        is_bounded: bool = False,
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.gate = gate
        self.downsample = downsample
        self.gate_reads_output = gate_reads_output
        self.is_bounded = is_bounded

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float [N, C_in, H, W] -> float [N, C, H / stride, W / stride]."""
        *inner, last = self.convs
        hidden = x
        for conv in inner:
            hidden = torch.relu(conv(hidden))
        y = last(hidden)
        if self.gate is not None:
            factor = self.gate((y if self.gate_reads_output else hidden).mean(dim=(2, 3)))
            y = y * (1 + torch.tanh(factor) if self.is_bounded else factor)[:, :, None, None]
        skip = x if self.downsample is None else self.downsample(x)
        return torch.relu(y + skip)


class FoldedResNet(nn.Module):
    """A SAM-ResNet after the fold; for inference only.

    Attributes:
        maxpool: after the stem; the identity for the stem "cifar".
    """

    def __init__(self, stem: nn.Conv2d, maxpool: nn.Module, stages: list[nn.Sequential], head: nn.Linear) -> None:
        super().__init__()
        self.stem = stem
        self.maxpool = maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.head = head

    def blocks(self) -> list[tuple[str, FoldedBlock]]:
        """Every block with its name, such as "layer1.0", in order."""
        stages = {f"layer{i}": getattr(self, f"layer{i}") for i in range(1, 5)}
        return [(f"{name}.{index}", block) for name, stage in stages.items() for index, block in enumerate(stage)]

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """float [N, 3, H, W], normalised -> float [N, C, H / 32, W / 32] (stem "cifar": / 8)."""
        x = self.maxpool(torch.relu(self.stem(x)))
        for _, block in self.blocks():
            x = block(x)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float [N, 3, H, W], normalised -> logits float [N, num_classes]."""
        logits: torch.Tensor = self.head(self.features(x).mean(dim=(2, 3)))
        return logits


@torch.no_grad()
def fold(model: SamResNet) -> FoldedResNet:
    """The same function as `model` in eval mode; `model` itself is left as it is."""
    stages = [nn.Sequential(*map(_fold_block, stage)) for stage in model.stages()]
    folded = FoldedResNet(_fold_norm(model.conv1, model.bn1), copy.copy(model.maxpool), stages, _fold_head(model.fc))
    return folded.eval().requires_grad_(False)


def _fold_block(block: nn.Module) -> FoldedBlock:
    assert isinstance(block, BasicBlock | Bottleneck)
    pairs = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
    if isinstance(block, Bottleneck):
        pairs.append((block.conv3, block.bn3))
    downsample = None
    if block.downsample is not None:
        conv, norm = block.downsample
        downsample = _fold_norm(cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, norm))
    return FoldedBlock(
        [_fold_norm(conv, norm) for conv, norm in pairs],
        _fold_gate(block),
        downsample,
        gate_reads_output=isinstance(block, BasicBlock),
        is_bounded=block.sl.gate == "bounded",
    )


def _fold_gate(block: BasicBlock | Bottleneck) -> nn.Linear | None:
    if block.sl.gate == "none":
        return None
    weight = block.sl.fc.weight.double()
    bias = torch.zeros(weight.shape[0], dtype=torch.float64, device=weight.device)
    if isinstance(block, Bottleneck):
        # From the float64 products, not from the stored float32 ones, so that nothing is rounded twice.
        pointwise_weight, pointwise_bias = _norm_products(block.conv3, block.bn3)
        bias = weight @ pointwise_bias
        weight = weight @ pointwise_weight.flatten(1)
    if block.sl.gate == "identity":
        bias = bias + 1
    return _linear(weight, bias, like=block.sl.fc.weight)


def _norm_products(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight [O, I, k, k] and bias [O] of conv followed by norm, float64."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return conv.weight.double() * scale[:, None, None, None], norm.bias.double() - norm.running_mean.double() * scale


def _fold_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    weight, bias = _norm_products(conv, norm)
    return _conv(weight, bias, like=conv.weight, stride=conv.stride[0], padding=int(conv.padding[0]))


def _conv(
    weight: torch.Tensor, bias: torch.Tensor, *, like: torch.Tensor, stride: int = 1, padding: int = 0
) -> nn.Conv2d:
    out_channels, in_channels, size, _ = weight.shape
    conv = nn.Conv2d(in_channels, out_channels, size, stride, padding, dtype=like.dtype, device=like.device)
    assert conv.bias is not None
    conv.weight.copy_(weight)
    conv.bias.copy_(bias)
    return conv


def _fold_head(head: nn.Module) -> nn.Linear:
    first, *others = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
    weight, bias = first.weight.double(), first.bias.double()
    for layer in others:
        weight = layer.weight.double() @ weight
        bias = layer.weight.double() @ bias + layer.bias.double()
    return _linear(weight, bias, like=first.weight)


def _linear(weight: torch.Tensor, bias: torch.Tensor, *, like: torch.Tensor) -> nn.Linear:
    out_features, in_features = weight.shape
    layer = nn.Linear(in_features, out_features, dtype=like.dtype, device=like.device)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer
