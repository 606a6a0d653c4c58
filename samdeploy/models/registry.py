"""The families of networks: finding an architecture's, its options, and building it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from samdeploy.bundle.spec import OptionValue
from samdeploy.errors import InputError, unknown

if TYPE_CHECKING:
    from torch import nn

    from samdeploy.models.family import ModelFamily

# Prefix of an architecture's name -> "module:object".  A name without a prefix, such as "sam-resnet50", is of "sam".
FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "sam": "samdeploy.models.sam_resnet.family:FAMILY",
        "timm": "samdeploy.models.timm:FAMILY",
        "torchvision": "samdeploy.models.torchvision:FAMILY",
        "python": "samdeploy.models.python_factory:FAMILY",
        "onnx": "samdeploy.models.onnx_file.family:FAMILY",
    }
)


def family_of(arch: str) -> ModelFamily:
    """The family of an architecture, imported now.

    Raises:
        InputError: no such family.
    """
    prefix, colon, _ = arch.partition(":")
    prefix = prefix if colon else "sam"
    if prefix not in FAMILIES:
        raise InputError(unknown("family of networks", prefix, FAMILIES))
    module, name = FAMILIES[prefix].split(":")
    return cast("ModelFamily", getattr(importlib.import_module(module), name))


def known_arch(arch: str) -> ModelFamily:
    """The family of an architecture that it has.

    Raises:
        InputError: no such family or architecture, with the nearest ones.
    """
    family = family_of(arch)
    if not family.knows(arch):
        if family.other_task is not None and (task := family.other_task(arch)):
            raise InputError(f"{arch}: {task}; samdeploy takes classifiers of images with one output")
        if others := architectures_called(arch):
            raise InputError(f"unknown architecture {arch!r}; did you mean {' or '.join(map(repr, others))}?")
        names = family.architectures()
        every = f" (list all: samdeploy models '{arch.partition(':')[0]}:*')" if names and ":" in arch else ""
        raise InputError(unknown("architecture", arch, names) + every)
    return family


def architectures_called(name: str) -> list[str]:
    """All architectures that are called `name` but for their family's prefix."""
    found = []
    for prefix in FAMILIES:
        with suppress(InputError):  # its package is not installed
            known = family_of(f"{prefix}:").architectures()
            found += [arch for arch in (name, f"{prefix}:{name}") if arch in known]
    return found


def calmer_training(arch: str, options: Mapping[str, OptionValue]) -> str:
    """What makes trainings calmer with options of the architecture's family; "" for nothing."""
    calmer = family_of(arch).calmer
    return calmer(options) if calmer else ""


def option_names() -> set[str]:
    """The options of all families."""
    return {name for prefix in FAMILIES for name in family_of(f"{prefix}:").options}


def complete_options(arch: str, options: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
    """`options` with the family's defaults for those that are left out.

    Raises:
        InputError: unknown architecture, option or value.
    """
    family = known_arch(arch)
    for name, value in options.items():
        if name not in family.options:
            raise InputError(unknown(f"option of {arch}", name, family.options))
        if value not in family.options[name]:
            valid = option_texts(family.options[name])
            raise InputError(unknown(name, str(value), valid, len(valid)))
    return {name: options.get(name, values[0]) for name, values in family.options.items()}


def option_texts(values: Sequence[OptionValue]) -> list[str]:
    """The values of an option for people, but for "", the absent one; of numbers the first and the last.

    >>> option_texts(("", *range(16, 2049)))
    ['16 to 2048']
    """
    numbers = [value for value in values if type(value) is int]
    others = [str(value) for value in values if type(value) is not int and value != ""]
    return [*others, f"{numbers[0]} to {numbers[-1]}"] if numbers else others


def options_for_size(
    arch: str, options: Mapping[str, OptionValue], height: int | None, width: int | None, *, misfits: bool = False
) -> Mapping[str, OptionValue]:
    """`options`, and those that a size needs which is not the architecture's own; see `ModelFamily.for_side`.

    Args:
        misfits: weights are of another size than the architecture's own; else they are asked for only where a network
            with `options` does not take images of this size.
    """
    for_side = family_of(arch).for_side
    if for_side is None or height is None or height != width:
        return options
    needed = for_side(arch, height)
    is_so = all(options.get(name, "") == value for name, value in needed.items())
    if is_so or (not misfits and _takes(arch, options, height)):
        return options
    return {**options, **needed}


def _takes(arch: str, options: Mapping[str, OptionValue], side: int) -> bool:
    """Whether a network takes square images of a side, tried without weights and numbers."""
    import torch

    try:
        with torch.device("meta"), torch.no_grad():
            build_model(arch, 1, options).eval()(torch.zeros(1, 3, side, side))
    except Exception:  # each network says it in its own way
        return False
    return True


def build_model(arch: str, num_classes: int, options: Mapping[str, OptionValue] = MappingProxyType({})) -> nn.Module:
    """A network with fresh weights, drawn from torch's global generator.

    Args:
        arch: one of the names that `family_of(arch).architectures()` gives.
        num_classes: number of logits.
        options: of the family; what is left out takes its default.

    Raises:
        InputError: unknown architecture, option or value, or num_classes below 1.
    """
    if num_classes < 1:
        raise InputError(f"num_classes: {num_classes} found, at least 1 expected")
    return family_of(arch).build(arch, num_classes, complete_options(arch, options))
