"""The architectures there are, and what their published weights say of themselves; no weights are read."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

import torch

from samdeploy.bundle.spec import RESIZES, Preprocessing
from samdeploy.errors import InputError, unknown
from samdeploy.models.registry import FAMILIES, build_model, complete_options, family_of

# Building more networks than these to count their parameters takes seconds.
MOST_COUNTED = 20
COUNTED_CLASSES = 1000


@dataclass(frozen=True, slots=True)
class Architecture:
    """One name that `samdeploy import` and recipes take.

    Attributes:
        name: with its family's prefix.
        preprocessing: of its published weights; None where no record says, or none that a bundle can express.
        license: of these weights.
        parameters: with `COUNTED_CLASSES` classes; None where they were not counted.
    """

    name: str
    preprocessing: Preprocessing | None
    license: str | None
    parameters: int | None

    def images(self) -> tuple[str | None, str | None, str | None]:
        """Size in pixels, filter of the resize, and percent of the shorter side that is seen, for people."""
        if (found := self.preprocessing) is None:
            return None, None, None
        size = str(found.height) if found.height == found.width else f"{found.height}x{found.width}"
        filter_ = next(name for name, resize in RESIZES.items() if resize == found.resize)
        side = min(found.height, found.width)
        return size, filter_, f"{100 * side / (found.resize_short or side):.0f}"


def family_sizes() -> dict[str, int | None]:
    """Family -> number of its names; None where there are none, or its package is not installed."""
    found: dict[str, int | None] = {}
    for prefix in FAMILIES:
        try:
            found[prefix] = len(family_of(f"{prefix}:").architectures()) or None
        except InputError:
            found[prefix] = None
    return found


def find_architectures(pattern: str) -> list[Architecture]:
    """The architectures whose name fits a pattern as of a shell's; without a family's prefix, those of all families.

    A word that no architecture is called stands for all whose names hold it.

    Raises:
        InputError: there are none, with the nearest names.
    """
    prefix, colon, _ = pattern.partition(":")
    families = [prefix] if colon and prefix in FAMILIES else list(FAMILIES)
    known = [name for family in families for name in family_of(f"{family}:").architectures()]
    called = {name: name if colon else name.rpartition(":")[2] for name in known}
    names = [name for name in known if fnmatch.fnmatchcase(called[name], pattern)]
    is_word = not set(pattern) & set("*?[")
    if not names and is_word:
        names = [name for name in known if pattern in called[name]]
    if not names:
        text = unknown("architecture", pattern, known, 0)
        near = is_word and "; did you mean" in text
        raise InputError(text if near else f"no architecture fits {pattern!r}; list the families: samdeploy models")
    return [_described(name, is_counted=len(names) <= MOST_COUNTED) for name in names]


def _described(name: str, *, is_counted: bool) -> Architecture:
    family = family_of(name)
    try:
        preprocessing = family.preprocessing(name, complete_options(name, {}))
    except InputError:
        preprocessing = None
    return Architecture(name, preprocessing, family.license(name), _parameters(name) if is_counted else None)


def _parameters(name: str) -> int | None:
    try:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in build_model(name, COUNTED_CLASSES).parameters())
    except NotImplementedError:  # some networks compute their widths in tensors
        return None
