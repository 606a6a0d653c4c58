"""Overrides of a recipe: "section.key=value", as `--set` takes them."""

from __future__ import annotations

import difflib
import re
import sys
import tomllib
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from samdeploy.bundle.fields import to_json
from samdeploy.errors import InputError, RecipeError
from samdeploy.terminal import is_misread
from samdeploy.train.recipe.checks import ELSEWHERE, HINTS, SECTIONS, SIZE_KEYS, every_key, section_keys
from samdeploy.train.recipe.recipe import ImageSection, ModelSection, Recipe

# Names that overrides may use beside the keys' own.
_ALIASES = {
    **dict.fromkeys(("size", "image.size"), SIZE_KEYS),
    **dict.fromkeys(("lr", "training.lr"), ("training.learning_rate",)),
}
_SIZE_PATHS = [key.split(".") for key in SIZE_KEYS]


def apply_overrides(table: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `table` with each "section.key=value" set; unknown keys are left to `recipe_from_table`.

    Raises:
        RecipeError: an override has no "=", or runs through a key that is no table.
    """
    result = _copy(table)
    for override in overrides:
        if not override.isprintable():  # a byte that is no UTF-8 reaches Python as a lone surrogate
            cure = "; this locale cannot decode it, set LC_ALL=C.UTF-8" if is_misread(override) else ""
            raise RecipeError(f"override {override!r}: printable text expected{cure}")
        key, equals, text = override.partition("=")
        paths = _full_paths(key.strip())
        if not equals or not all(part for path in paths for part in path):
            raise RecipeError(f"override {override!r}: section.key=value expected, for example training.epochs=3")
        if paths == _SIZE_PATHS:
            values: Sequence[Any] = _sides(text.strip(), override)
        else:
            values = [_override_value(path, text.strip()) for path in paths]
        for path, value in zip(paths, values, strict=True):
            _set(result, path, value, override)
    given = overridden(overrides)
    result = without_other_options(result, table, {key.removeprefix("model.") for key in given})
    return _with_record(result, given) if "model.arch" in given else result


def _with_record(table: dict[str, Any], given: Collection[str]) -> dict[str, Any]:
    """The images as the architecture's published weights expect them, where the training starts from weights.

    Args:
        given: keys that were named; they stay as they are, and a size keeps the crop's share of the record.
    """
    model, image = table.get("model", {}), table.get("image", {})
    if not isinstance(model, Mapping) or not isinstance(image, Mapping):  # reported when the recipe is checked
        return table
    arch = str(model.get("arch"))
    if not model.get("pretrained", ModelSection().pretrained):
        return table
    from samdeploy.models.preprocessing import Given, adapted
    from samdeploy.models.registry import known_arch  # late: it comes with torch

    try:
        record = known_arch(arch).preprocessing(arch, {})
    except InputError:  # likewise
        return table
    if record is None:
        return table
    kept = {key.removeprefix("image.") for key in given if key.startswith("image.")}
    size = {key: image[key] for key in ("height", "width", "resize_short", "fit") if key in kept}
    if not all(isinstance(value, int) for key, value in size.items() if key != "fit"):
        return table
    own = ImageSection.of(adapted(record, Given(**size)))
    changed = {key: value for key, value in to_json(own).items() if key not in kept}
    print(f"images as {arch} expects them: {own.height}x{own.width}, {own.filter}, {own.fit}", file=sys.stderr)
    return {**table, "image": {**image, **changed}}


def without_other_options(table: dict[str, Any], before: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """A recipe without the options of the family that it was written for, if it has an architecture of another now.

    Args:
        table: the recipe; its architecture may be changed.
        before: the recipe as its file has it.
        given: options that were named together with the new architecture.
    """
    sections = [one.get("model", {}) for one in (before, table)]
    if not all(isinstance(section, Mapping) for section in sections):  # reported when the recipe is checked
        return table
    old, new = (str(section.get("arch", ModelSection().arch)) for section in sections)
    if old == new:
        return table
    from samdeploy.models.registry import family_of  # late: it comes with torch

    try:
        others = set(family_of(old).options) if family_of(old) is not family_of(new) else set()
    except InputError:  # likewise
        return table
    kept = {key: value for key, value in sections[1].items() if key not in others or key in given}
    return {**table, "model": kept}


def _set(table: dict[str, Any], path: Sequence[str], value: Any, override: str) -> None:
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise RecipeError(f"override {override!r}: {part!r} is a value, not a section")
    if len(path) == 1 and path[0] in SECTIONS and isinstance(value, dict):  # would drop the recipe's other keys
        one_by_one = "its keys one by one expected, for example training.epochs=3"
        raise RecipeError(f"override {override!r}: a whole section found; {one_by_one}")
    table[path[-1]] = value


def _sides(text: str, override: str) -> tuple[int, int]:
    """Height and width from "64" or "64x48"."""
    found = re.fullmatch(r"(\d{1,9})(?:x(\d{1,9}))?", text)
    if found is None:
        raise RecipeError(f"override {override!r}: pixels expected, as one number or as HEIGHTxWIDTH, such as 64x48")
    height, width = found.groups()
    return int(height), int(width or height)


def overridden(overrides: Sequence[str]) -> set[str]:
    """The keys that `apply_overrides` sets, each with its section."""
    keys = (override.partition("=")[0].strip() for override in overrides)
    return {".".join(path) for key in keys for path in _full_paths(key)}


def keys_like(name: str) -> tuple[str, ...]:
    """The keys, each with its section, that somebody means who writes `name`; () if nobody can tell."""
    name = name.lower()
    own = [f"{section}.{key}" for section, keys in section_keys().items() for key in keys if key == name]
    if own or (meant := ELSEWHERE.get(name)):
        return tuple(own) or meant or ()
    everywhere = {key: f"{section}.{key}" for section, keys in every_key().items() for key in keys}
    near = difflib.get_close_matches(name, everywhere, n=2, cutoff=0.7)
    return tuple(everywhere[key] for key in near)


def _full_paths(key: str) -> list[list[str]]:
    """The parts of the dotted keys that an override's key sets; a bare one that only one section has gets that section.

    Two where one name stands for two keys: size for height and width.
    """
    if aliases := _ALIASES.get(key):
        return [alias.split(".") for alias in aliases]
    path = [part.strip() for part in key.split(".")]
    if len(path) == 1 and key not in HINTS:
        homes = [name for name, keys in section_keys().items() if key in keys]
        homes = homes or [name for name, keys in every_key().items() if key in keys]
        if len(homes) == 1:
            return [[homes[0], key]]
    return [path]


def _override_value(path: Sequence[str], text: str) -> Any:
    """`text` as TOML; as a plain string where it is no TOML, or where only a string fits (a folder called 2024)."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = parsed["value"]
    if len(parsed) > 1 or (_wants_string(path) and not isinstance(value, str)):
        return text
    return value


def _wants_string(path: Sequence[str]) -> bool:
    hints = HINTS if len(path) == 1 else typing.get_type_hints(SECTIONS.get(path[0], Recipe))
    return len(path) <= 2 and hints.get(path[-1]) is str


def _copy(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in table.items()}
