"""Optimisers, and parts of the network that learn more slowly or not at all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from samdeploy.errors import RecipeError
from samdeploy.models import build_model
from samdeploy.train.loop.frozen import freeze, frozen_weights
from samdeploy.train.loop.optimizer import make_optimizer, set_rate
from samdeploy.train.loop.parts import parts_of
from samdeploy.train.recipe.recipe import TrainingSection

SAM = "sam-resnet18"


def on_meta(arch: str) -> nn.Module:
    with torch.device("meta"):
        return build_model(arch, 3)


@pytest.mark.parametrize(
    ("arch", "names"),
    [
        (SAM, ["stem", *(f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)), "head"]),
        ("timm:test_vit", ["stem", *(f"blocks.{block}" for block in range(6)), "head"]),
        ("timm:test_efficientnet", ["stem", *(f"blocks.{stage}" for stage in range(5)), "head"]),
        ("torchvision:densenet121", ["stem", "features.denseblock1", "features.transition1"]),
        ("torchvision:vit_b_16", ["stem", *(f"encoder.layers.encoder_layer_{layer}" for layer in range(12)), "head"]),
        ("timm:resnet10t", ["stem", *(f"layer{stage}.0" for stage in range(1, 5)), "head"]),
        ("timm:regnety_002", ["stem", "s1", "s2", "s3", "s4", "head"]),
        ("timm:convnext_atto", ["stem", *(f"stages.{stage}" for stage in range(4)), "head"]),
    ],
)
def test_parts_hold_every_weight_once(arch: str, names: list[str]) -> None:
    model = on_meta(arch)
    parts = parts_of(model, arch)
    assert [part.name for part in parts][: len(names)] == names
    assert sorted(name for part in parts for name in part.weights) == sorted(
        name for name, _ in model.named_parameters()
    )


def test_layer_decay_slows_each_part_down() -> None:
    model = build_model(SAM, 3)
    optimizer = make_optimizer(model, SAM, TrainingSection(layer_decay=0.5, weight_decay=0.1))
    set_rate(optimizer, 1.0)
    rates = {id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    found = {name: rates[id(weight)] for name, weight in model.named_parameters()}
    assert (found["fc.weight"], found["layer4.1.conv1.weight"], found["conv1.weight"]) == (1.0, 0.5, 0.5**9)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.1, 0.0}


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)]
)
def test_optimisers(name: str, kind: type) -> None:
    made = make_optimizer(nn.Linear(2, 2), "", TrainingSection(optimizer=name))  # type: ignore[arg-type]
    assert type(made) is kind


@pytest.mark.parametrize(
    ("wanted", "epochs", "epoch", "learning"),
    [
        ("none", 0, 1, "conv1.weight"),
        ("trunk", 0, 9, "fc.weight"),
        ("layer2", 0, 9, "layer3.0.conv1.weight"),
        ("layer2.0", 0, 1, "layer2.1.conv1.weight"),
        ("stem", 2, 2, "layer1.0.conv1.weight"),
        ("trunk", 2, 3, "conv1.weight"),
    ],
)
def test_the_first_weight_that_learns(wanted: str, epochs: int, epoch: int, learning: str) -> None:
    model = on_meta(SAM)
    training = TrainingSection(freeze=wanted, freeze_epochs=epochs)
    assert freeze(model, frozen_weights(model, SAM, training, epoch)) == (learning != "conv1.weight")
    assert next(name for name, weight in model.named_parameters() if weight.requires_grad) == learning


@pytest.mark.parametrize(
    ("wanted", "problem"), [("head", "freezes the head and all before it"), ("layer9", "did you mean 'layer4'")]
)
def test_what_cannot_be_frozen(wanted: str, problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        frozen_weights(on_meta(SAM), SAM, TrainingSection(freeze=wanted), epoch=1)
