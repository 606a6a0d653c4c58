"""Fine-tuning with a part of the network frozen, as it was loaded."""

from __future__ import annotations

from torch import nn

from samdeploy.errors import RecipeError, unknown
from samdeploy.train.loop.parts import parts_of
from samdeploy.train.recipe.recipe import TrainingSection


def frozen_weights(model: nn.Module, arch: str, training: TrainingSection, epoch: int) -> frozenset[str]:
    """Names of the parameters that do not learn in an epoch, counted from 1.

    Raises:
        RecipeError: `training.freeze` names no part of the network, or all of it.
    """
    wanted = training.freeze
    if wanted == "none" or (training.freeze_epochs and epoch > training.freeze_epochs):
        return frozenset()
    *trunk, head = parts_of(model, arch)
    if wanted == head.name:
        raise RecipeError("training.freeze: 'head' freezes the head and all before it; 'trunk' trains the head alone")
    last = {"trunk": len(trunk) - 1}
    for index, part in enumerate(trunk):
        words = part.name.split(".")
        last |= {".".join(words[:count]): index for count in range(1, len(words) + 1)}
    if wanted not in last:
        raise RecipeError(unknown("training.freeze", wanted, ["none", *last]))
    return frozenset(name for part in trunk[: last[wanted] + 1] for name in part.weights)


def freeze(model: nn.Module, frozen: frozenset[str]) -> bool:
    """Let all parameters but those learn; says whether that is a change."""
    changed = False
    for name, weight in model.named_parameters():
        changed |= weight.requires_grad is (name in frozen)
        weight.requires_grad_(name not in frozen)
    return changed


def training_mode(model: nn.Module) -> nn.Module:
    """`model` in training mode, but for what is frozen: its batch norms keep the statistics they were loaded with."""
    model.train()
    for module in model.modules():
        weights = list(module.parameters())
        if weights and not any(weight.requires_grad for weight in weights):
            module.eval()
    return model
