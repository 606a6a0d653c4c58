"""The optimiser of a recipe, and how fast each part of the network learns."""

from __future__ import annotations

import torch
from torch import nn

from samdeploy.errors import RecipeError
from samdeploy.train.loop.parts import parts_of
from samdeploy.train.recipe.recipe import TrainingSection

MOMENTUM = 0.9
# What each keeps of a weight.
_ADAM = ("step", "exp_avg", "exp_avg_sq")
STATE = {"adamw": _ADAM, "adam": _ADAM, "sgd": ("momentum_buffer",)}
_LEAST_PARTS = 3  # the stem, something, and the head


def make_optimizer(model: nn.Module, arch: str, training: TrainingSection) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101), Adam, or SGD with Nesterov's momentum.

    Weight decay is decoupled in AdamW and part of the gradient in the others; biases and batch norms are not decayed.
    Each group of weights has `lr_scale`, what its learning rate is multiplied by: ``layer_decay`` to the power of the
    parts between it and the head (Clark et al. 2020, arXiv:2003.10555, section 3.1).

    Fused on every device: on the GPU that keeps the check for infinities there, and on the CPU one pass over memory
    takes the place of a dozen.

    Raises:
        RecipeError: there is no `layer_decay` for this network.
    """
    groups = _groups(model, arch, training)
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=training.learning_rate, momentum=MOMENTUM, nesterov=True, fused=True)
    kind = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=training.learning_rate, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next step, at the head."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def _groups(model: nn.Module, arch: str, training: TrainingSection) -> list[dict[str, object]]:
    weights = dict(model.named_parameters())
    if training.layer_decay == 1:
        parts = [(1.0, list(weights.values()))]
    else:
        found = parts_of(model, arch)
        if len(found) < _LEAST_PARTS:
            raise RecipeError(f"training.layer_decay: {arch} has no parts that can be told apart; 1 expected")
        parts = [
            (training.layer_decay ** (len(found) - 1 - depth), [weights[name] for name in part.weights])
            for depth, part in enumerate(found)
        ]
    return [
        {"params": chosen, "weight_decay": decay, "lr_scale": scale}
        for scale, members in parts
        for decay, chosen in (
            (training.weight_decay, [weight for weight in members if weight.ndim > 1]),
            (0.0, [weight for weight in members if weight.ndim <= 1]),
        )
    ]
