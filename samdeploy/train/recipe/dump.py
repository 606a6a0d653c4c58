"""Recipes as TOML text, with the comments of the files that they were read from."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from samdeploy.bundle.fields import to_json
from samdeploy.train.recipe.recipe import Recipe

# Keys outside all sections.
_HEAD: Sequence[str] = ("name", "description", "changed")


def recipe_table(recipe: Recipe) -> dict[str, Any]:
    """The recipe as nested dictionaries, name and description first."""
    table: dict[str, Any] = to_json(recipe)
    if not recipe.changed:
        del table["changed"]
    options = table["model"].pop("options")
    table["model"] = {"arch": recipe.model.arch, **options, "pretrained": recipe.model.pretrained}
    return table


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as complete TOML: every key, defaults and overrides resolved.

    Comments, order and spelling are those of the file that it was read from; keys that this one lacks come with the
    comments of the recipe that it extends.
    """
    import tomlkit  # late: listing recipes does not need it
    from tomlkit.exceptions import TOMLKitError

    table = recipe_table(recipe)
    try:
        own, *bases = map(tomlkit.parse, recipe.texts)
        # Above the comments of the file, where tomlkit would put them below.  What changed belongs to the description.
        head = {key: table[key] for key in _HEAD if key in table and key not in own}
        if "description" in own:
            head.pop("changed", None)
        _fill(own, {key: value for key, value in table.items() if key not in head}, bases)
        text = tomlkit.dumps(head) + tomlkit.dumps(own)
        if tomllib.loads(text) == table:
            return text
    except (TOMLKitError, ValueError):  # made in memory; or written in a way that tomlkit does not know
        pass
    return tomlkit.dumps(table)


def _fill(into: MutableMapping[str, Any], values: Mapping[str, Any], bases: Sequence[Mapping[str, Any]]) -> None:
    """Give `into`, a part of a parsed file, exactly `values`; what it lacks is copied from the first base that has it.

    Args:
        bases: the same part of the files that this one extends.
    """
    for key in [key for key in into if key not in values]:
        del into[key]
    for key, value in values.items():
        inner = [base[key] for base in bases if key in base]
        if key not in into:
            into[key] = copy.deepcopy(inner[0]) if inner else {} if isinstance(value, dict) else value
        if isinstance(value, dict):
            _fill(into[key], value, inner)
        elif into[key] != value:
            into[key] = value
