"""Read a recipe with its overrides, and write one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from samdeploy.train.recipe.checks import recipe_from_table
from samdeploy.train.recipe.overrides import apply_overrides, overridden
from samdeploy.train.recipe.recipe import NOT_THE_EXPERIMENT, Recipe
from samdeploy.train.recipe.source import read_recipe_source, with_recognised_set


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply overrides and check the result.

    Args:
        name_or_path: one of `recipe_names()`, the path of a `.toml` file, or a folder or list of images.
        overrides: each "section.key=value"; the value is TOML, and text that is no TOML is taken as a string.
            The section may be left out where the key occurs once; name and description are top-level keys.  Without
            a new description, `Recipe.changed` names the keys.

    Raises:
        InputError: no such recipe, file or folder.
        RecipeError: not TOML, extends what cannot be had, or unknown keys, wrong types or impossible values; all of
            them are listed.
    """
    source = read_recipe_source(str(name_or_path))
    table = with_recognised_set(apply_overrides(source.table, overrides))
    recipe = recipe_from_table(table, source.origin)
    if recipe.description == source.table.get("description", ""):
        changed = tuple(sorted({*recipe.changed, *overridden(overrides)} - NOT_THE_EXPERIMENT))
    else:
        changed = ()
    return dataclasses.replace(recipe, changed=changed, texts=source.texts)
