"""The parts of a network from its input to its head, as fine-tuning takes them: some stay frozen, or learn slowly."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from samdeploy.models.pretrained import is_of_head


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
    """The stem, each block or stage, and the head.

    The members of top-level sequences are parts; weights before the first of them are the stem, and others join the
    part before them.
    """
    sequences = {
        name
        for name, child in model.named_children()
        if isinstance(child, nn.Sequential | nn.ModuleList) and sum(1 for part in child if list(part.parameters())) > 1
    }
    parts: dict[str, list[str]] = {"stem": []}
    head, last = [], "stem"
    for name, _ in model.named_parameters():
        if is_of_head(arch, name):
            head.append(name)
            continue
        top, *rest = name.split(".")
        if top in sequences:
            last = f"{top}.{rest[0]}"
        parts.setdefault(last, []).append(name)
    return [NetworkPart(name, tuple(names)) for name, names in [*parts.items(), ("head", head)] if names]
