"""What a network is imported from: published weights, or a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from samdeploy.errors import InputError
from samdeploy.models.family import FAMILIES, family_of, known_arch
from samdeploy.models.pretrained import head_classes, published_weights
from samdeploy.models.weights import read_state


@dataclass(frozen=True, slots=True)
class Source:
    """A network's weights, and what lies beside them.

    Attributes:
        arch: with its family's prefix.
        name: what to call the run.
        origin: where the weights are from, for people.
        state: the weights.
        num_classes: that the head tells apart.
        classes: names, where the file holds them.
        license: of published weights.
        is_published: the weights were fetched by the architecture's name.
    """

    arch: str
    name: str
    origin: str
    state: Mapping[str, torch.Tensor]
    num_classes: int
    classes: tuple[str, ...] | None = None
    license: str | None = None
    is_published: bool = False


def read_source(source: str, arch: str | None) -> Source:
    """The weights that `samdeploy import SOURCE` names.

    Args:
        source: an architecture with published weights, or a file.
        arch: whose weights the file holds.

    Raises:
        InputError: neither, or an unknown architecture.
        WeightsError: the weights cannot be had, or are not the architecture's.
    """
    path = Path(source)
    if source.partition(":")[0] in FAMILIES and not path.exists():
        if arch is not None:
            raise InputError(f"--arch {arch}: {source} names an architecture already; leave --arch out")
        known_arch(source)
        found = published_weights(source)
        name, license = source.partition(":")[2], family_of(source).license(source)
        count = head_classes(source, found.state)
        return Source(source, name, found.source, found.state, count, license=license, is_published=True)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"{source}: {what}; a file of weights or an architecture such as timm:resnet50 expected")
    if arch is None:
        raise InputError(f"{source}: whose weights are these? Name the architecture: --arch timm:NAME")
    known_arch(arch)
    state = read_state(path)
    return Source(arch, path.stem, str(path), state, head_classes(arch, state))
