"""A network that no family of samdeploy knows, as a user would write it."""

from __future__ import annotations

import torch
from torch import nn


class Tiny(nn.Module):
    """Two convolutions, the mean, and a linear layer."""

    def __init__(self, num_classes: int, width: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).mean((2, 3)))


def tiny(num_classes: int) -> nn.Module:
    return Tiny(num_classes)


class Tied(Tiny):
    """One normalisation under two names, and a buffer whose numbers share their memory."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.again = self.features[1]
        self.register_buffer("scale", torch.ones(1).expand(num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.scale


def tied(num_classes: int) -> nn.Module:
    return Tied(num_classes)


class Bent(Tiny):
    """The same tensors, another function."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -super().forward(x)


def bent(num_classes: int) -> nn.Module:
    return Bent(num_classes)


class Clipped(Tiny):
    """The same function where no pixel is below 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.clamp(min=0))


def clipped(num_classes: int) -> nn.Module:
    return Clipped(num_classes)


def leaving(num_classes: int) -> nn.Module:
    raise SystemExit(num_classes)


def wide(num_classes: int) -> nn.Module:
    return Tiny(num_classes, width=24)


def failing(num_classes: int) -> nn.Module:
    raise KeyError(num_classes)


def no_module(num_classes: int) -> object:
    return num_classes
