"""Exponential mean of the weights (Polyak and Juditsky 1992, in the form of PyTorch's `AveragedModel`)."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class WeightMean:
    """A copy of a network whose weights and running means follow the original's slowly.

    In the first steps the decay is (1 + n) / (10 + n): a mean that began with random weights and forgot at 0.9999 would
    need tens of thousands of steps to lose them.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._averaged = AveragedModel(model, use_buffers=True)
        self._averaged.requires_grad_(False)

    @property
    def model(self) -> nn.Module:
        """The network with the averaged weights."""
        return self._averaged.module

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights of `model` after `step` steps, counted from 1 over all epochs."""
        decay = min(self._decay, (1 + step) / (10 + step))
        self._averaged.multi_avg_fn = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._averaged.update_parameters(model)
        # Counters have no mean; PyTorch would round one towards zero.
        counters = [
            [buffer for buffer in network.buffers() if not buffer.is_floating_point()]
            for network in (self._averaged.module, model)
        ]
        if counters[0]:
            torch._foreach_copy_(counters[0], counters[1])

    def state(self) -> dict[str, torch.Tensor]:
        """What `load` needs, by key."""
        return dict(self._averaged.state_dict())

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from a `state`."""
        self._averaged.load_state_dict(state)
