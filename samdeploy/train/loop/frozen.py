"""Training the head alone, on a trunk that stays as it was loaded."""

from __future__ import annotations

from torch import nn

from samdeploy.models.pretrained import is_of_head


def freeze_trunk(model: nn.Module, arch: str) -> None:
    """Let only the head of a network of `arch` learn."""
    for name, weight in model.named_parameters():
        weight.requires_grad_(is_of_head(arch, name))


def training_mode(model: nn.Module) -> nn.Module:
    """`model` in training mode, but for what is frozen: its batch norms keep the statistics they were loaded with."""
    model.train()
    for module in model.modules():
        weights = list(module.parameters())
        if weights and not any(weight.requires_grad for weight in weights):
            module.eval()
    return model
