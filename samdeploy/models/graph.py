"""The forward pass that leaves Python: pixels in, logits out."""

from __future__ import annotations

import torch
from torch import nn

from samdeploy.bundle.spec import ModelSpec, Preprocessing


class Normalize(nn.Module):
    """uint8 NHWC pixels to normalised floats: ``(x / 255 - mean) / std`` per channel.

    Written as one multiplication and one addition, ``x * scale + shift``, with both constants formed in float64.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        mean = torch.tensor(preprocessing.mean, dtype=torch.float64)
        std = torch.tensor(preprocessing.std, dtype=torch.float64)
        self.register_buffer("scale", (1 / (255 * std)).float().reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).float().reshape(1, 3, 1, 1), persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 [N, H, W, 3], RGB -> float32 [N, 3, H, W]."""
        return image.permute(0, 3, 1, 2).to(self.scale.dtype) * self.scale + self.shift


class Exported(nn.Module):
    """`net` behind the interface of a bundle: uint8 [N, H, W, 3] RGB -> float32 [N, K]."""

    def __init__(self, net: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.normalize = Normalize(spec.preprocessing)
        self.net = net

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 [N, H, W, 3], RGB -> logits float32 [N, K]."""
        logits: torch.Tensor = self.net(self.normalize(image))
        return logits.float()
