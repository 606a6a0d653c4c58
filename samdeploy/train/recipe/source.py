"""Where a recipe comes from: a built-in name, a file with what it extends, or a folder of images."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samdeploy.bundle.names import RECIPE_FILE
from samdeploy.bundle.path_kind import PathKind, a, path_kind
from samdeploy.data.sets.given import OWN_IMAGES, is_list_of_images, what_is_given
from samdeploy.errors import InputError, RecipeError, unknown
from samdeploy.files import expanded, user_text
from samdeploy.train.recipe.checks import recipe_from_table
from samdeploy.train.recipe.overrides import without_other_options

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
# The recipe for a folder of images that is named in the place of a recipe; its values are every key's default.
FOLDER_RECIPE = "folder"
# Key that names the recipe whose values a file starts from.
_EXTENDS = "extends"
_OWN_KEYS = ("name", "description", "changed")


@dataclass(frozen=True, slots=True)
class RecipeSource:
    """A recipe before overrides and checks.

    Attributes:
        table: as TOML has it, together with what it extends.
        origin: "recipe digits"; opens the text of errors.
        texts: the file, and those that it extends; one after the other, the last one extends nothing.
    """

    table: dict[str, Any]
    origin: str
    texts: tuple[str, ...]


def recipe_names() -> tuple[str, ...]:
    """The recipes that come with samdeploy, sorted."""
    return tuple(sorted(path.stem for path in RECIPES.glob("*.toml")))


def is_folder_of_images(name_or_path: str) -> bool:
    """Whether `read_recipe_source` takes this for images, in a folder, a table or tar shards.

    A recipe's name wins unless it has a slash.
    """
    if name_or_path in recipe_names():
        return False
    if not expanded(name_or_path).is_dir():
        return is_list_of_images(expanded(name_or_path))
    return path_kind(expanded(name_or_path)) in ("folder of images", "folder", "empty folder")


def with_recognised_set(table: dict[str, Any]) -> dict[str, Any]:
    """A recipe for a user's own images with the data set that reads what its root holds."""
    data = table.get("data", {})
    name, root = (data.get("name", "folder"), data.get("root", "data")) if isinstance(data, Mapping) else ("", "")
    if name not in OWN_IMAGES or not isinstance(root, str) or "\0" in root:
        return table
    given = what_is_given(expanded(root))
    if given.kind == name or (given.is_missing() and name != "folder"):
        return table
    return {**table, "data": {**data, "name": given.kind}}


def read_recipe_source(name_or_path: str) -> RecipeSource:
    """Read a recipe and what it extends.

    Args:
        name_or_path: one of `recipe_names()`, the path of a `.toml` file, or images.

    Raises:
        InputError: no such recipe, file or folder.
        RecipeError: not TOML, or what it extends cannot be had.
    """
    if is_folder_of_images(name_or_path):
        source = _with_bases(RECIPES / f"{FOLDER_RECIPE}.toml", ())
        source.table["data"]["root"] = name_or_path
        return source
    return _with_bases(_recipe_path(name_or_path), ())


def _with_bases(path: Path, before: tuple[Path, ...]) -> RecipeSource:
    origin = f"recipe {path.stem}" if path.parent == RECIPES else f"recipe {path}"
    text = _text(path, origin)
    table = _table(text, origin)
    base_name = table.pop(_EXTENDS, None)
    chain = (*before, path.resolve())
    if base_name is None:
        table.setdefault("name", path.stem)
        return RecipeSource(table, origin, (text,))
    if not isinstance(base_name, str):
        raise RecipeError(f"{origin}: {_EXTENDS}: {base_name!r} found, a recipe's name or the path of a .toml expected")
    try:
        base_path = _recipe_path(base_name, path.parent)
    except InputError as error:
        raise RecipeError(f"{origin}: {_EXTENDS}: {error}") from None
    if base_path.resolve() in chain:
        names = " -> ".join(one.name for one in (*chain, base_path))
        raise RecipeError(f"{origin}: {_EXTENDS}: the recipes extend one another in a circle: {names}")
    base = _with_bases(base_path, chain)
    recipe_from_table(base.table, base.origin)  # a mistake in the base is named with the base's file
    merged = {**_extended(base.table, table), "name": table.get("name", path.stem)}
    if "description" not in table:
        was, now = dict(_leaves(base.table)), dict(_leaves(merged))
        changed = {key for key, value in now.items() if key not in _OWN_KEYS and was.get(key) != value}
        merged["changed"] = sorted(changed.union(base.table.get("changed", ())))
    return RecipeSource(merged, origin, (text, *base.texts))


def _extended(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with the values of another; without its options, where they belong to another data set or family."""
    start = {key: value for key, value in base.items() if key != "changed" or "description" not in own}
    data, own_data = start.get("data", {}), own.get("data")
    if isinstance(own_data, Mapping) and own_data.get("name", data.get("name")) != data.get("name"):
        start["data"] = {key: value for key, value in data.items() if key != "options"}
    own_model = own.get("model")
    return without_other_options(_merged(start, own), start, own_model if isinstance(own_model, Mapping) else ())


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in own.items():
        both = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        result[key] = _merged(base[key], value) if both else value
    return result


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(path: Path, origin: str) -> str:
    try:
        return user_text(path).replace("\r\n", "\n")
    except (OSError, UnicodeError) as error:
        raise RecipeError(f"{origin}: cannot be read as UTF-8 text ({error})") from None


def _table(text: str, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # also of an integer of thousands of digits
        lists = "" if origin.lower().endswith(".toml") else "; lists of images are .csv, .tsv, .jsonl, .parquet or .tar"
        raise RecipeError(f"{origin}: not a valid recipe (TOML): {error}{lists}") from None


def _recipe_path(name_or_path: str, folder: Path = Path()) -> Path:
    """The file of a recipe; a path is relative to `folder`."""
    if name_or_path in recipe_names():
        return RECIPES / f"{name_or_path}.toml"
    path = folder / expanded(name_or_path)
    kind = path_kind(path if path_kind(name_or_path) != "URL" else name_or_path)
    if kind in ("recipe", "file"):
        return path
    is_file_name = path.suffix == ".toml" or what_is_given(path).kind != "folder"
    if kind == "nothing" and not is_file_name and "/" not in name_or_path:
        text = unknown("recipe, file or folder", name_or_path, recipe_names())
        raise InputError(text.replace("did you mean", "did you mean the recipe").replace("Valid:", "Recipes:"))
    raise InputError(f"{name_or_path if kind == 'URL' else path}: {_not_a_recipe(kind, path)}")


def _not_a_recipe(kind: PathKind, path: Path) -> str:
    expected = "a recipe's name, a .toml file or a folder of images expected"
    if kind == "nothing":
        return f"no such file or folder; {expected}"
    if kind in ("run", "run without a bundle", "unfinished run"):
        if not (path / RECIPE_FILE).is_file():
            from_it = f"samdeploy train FOLDER --set model.pretrained={path}"
            return f"is an imported network; to train from its weights: {from_it}"
        again = f"to train its recipe again: samdeploy train {path / RECIPE_FILE}"
        return f"is a run; to continue it: samdeploy train --resume {path}; {again}"
    cure = {
        "URL": "; download it, then: samdeploy train FOLDER",
        "image": "; name the folder whose folders are the classes: samdeploy train FOLDER",
        "archive": "; unpack it, then: samdeploy train FOLDER",
        "weight file": f"; to start from it: samdeploy train FOLDER --set model.pretrained={path}",
        "bundle": f"; to evaluate it: samdeploy eval {path}",
        "folder of runs": f"; to continue the newest: samdeploy train --resume --runs {path}",
    }.get(kind, "")
    return f"is {a(kind)}; {expected}{cure}"
