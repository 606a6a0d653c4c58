"""The parts of a network from its input to its head, as fine-tuning takes them: some stay frozen, or learn slowly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from samdeploy.models.pretrained import is_of_head

# What comes before the blocks, where it is a module of several layers.
_STEM = ("stem", "conv", "patch", "embed")


@dataclass(frozen=True, slots=True)
class NetworkPart:
    """Weights next to one another in the network.

    Attributes:
        name: "stem", "layer1.0", "blocks.3", ..., "head".
        weights: names of its parameters.
    """

    name: str
    weights: tuple[str, ...]


def parts_of(model: nn.Module, arch: str) -> list[NetworkPart]:
    """The stem, each block or stage, and the head, in the order in which the network names its modules.

    Members of sequences that are made of layers themselves are parts, as are modules of several layers outside of
    sequences.  Single layers join the part before them; what comes before the first part is the stem.
    """
    weights = dict(model.named_parameters())
    heads = {name for name in weights if is_of_head(arch, name)}
    # What is beside the head in a module, such as a norm, joins the part before; whole layers are a part.
    trunk = [name for name, weight in weights.items() if name not in heads]
    names = [
        name
        for name in _names(model)
        if not any(head.startswith(f"{name}.") for head in heads)
        or any(weights[weight].ndim > 1 for weight in trunk if weight.startswith(f"{name}."))
    ]
    parts: dict[str, list[str]] = {"stem": []}
    last = "stem"
    for weight in trunk:
        last = next((name for name in names if weight.startswith(f"{name}.")), last)
        parts.setdefault(last, []).append(weight)
    parts["head"] = [name for name in weights if name in heads]
    return [NetworkPart(name, tuple(members)) for name, members in parts.items() if members]


def _names(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """The modules that are parts."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if _is_sequence(child):
            yield from (f"{path}.{member}" for member, made in child.named_children() if _is_block(made))
        elif any(map(_is_sequence, child.children())):
            yield from _names(child, f"{path}.")
        elif _is_block(child) and not name.startswith(_STEM):
            yield path


def _is_sequence(module: nn.Module) -> bool:
    """Whether its members are blocks: not layers, as those of a deep stem are."""
    return isinstance(module, nn.Sequential | nn.ModuleList) and any(map(_is_block, module))


def _is_block(module: nn.Module) -> bool:
    """Whether it has several layers with weights."""
    return sum(1 for layer in module.modules() if any(True for _ in layer.parameters(recurse=False))) > 1
