"""Streamlined attention: a channel gate without squashing, at the end of every residual block.

``original``: ``SAM(x) = x * W·GAP(x)``; ``identity``: ``x * (1 + W·GAP(x))`` with W started at zero, so that a
network begins as the plain ResNet whose weights it was given; ``none``: x itself, no attention, to compare with.  GAP
is the mean over height and width, W one linear layer C -> C without bias.
"""

from __future__ import annotations

import torch
from torch import nn

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
        weight: torch.Tensor = self.fc(x.mean(dim=(2, 3)))
        if self.gate == "identity":
            weight = weight + 1
        return x * weight[:, :, None, None]
