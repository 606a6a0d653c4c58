"""What several commands do with what the user typed: refuse it in words, or say what was taken instead.

Loads neither numpy nor any runtime: `samdeploy --help` imports this file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from samdeploy.errors import InputError, unknown

if TYPE_CHECKING:
    from samdeploy.train.recipe import Recipe

# Which of our extras brings a package.
_EXTRAS = {
    **dict.fromkeys(("torch", "torchvision", "safetensors", "sklearn", "scipy"), "train"),
    **{package: package for package in ("onnxruntime", "openvino", "tensorrt")},
    "onnx": "export",
    "matplotlib": "plots",
    "jinja2": "report",
}


def check_name(kind: str, found: str | None, valid: Iterable[str]) -> None:
    """Refuse a name that is none of `valid`, with the nearest ones; None is always fine."""
    if found is not None and found not in valid:
        raise InputError(unknown(kind, found, valid))


def one_name(option: str, found: Sequence[str] | None, default: str) -> str:
    """The one value of an option that the command line would silently take the last of."""
    if found and len(found) > 1:
        raise InputError(f"{option}: {', '.join(found)} found, one name or all expected; or run it once for each")
    return found[0] if found else default


def taken(what: str, path: Path) -> Path:
    """Say which newest `what` a command works on, and give it back."""
    print(f"taking the newest {what}: {path}", file=sys.stderr)
    return path


def batch_sizes(text: str) -> tuple[int, int, int]:
    """ "1,8,64": smallest, usual and largest batch."""
    try:
        low, usual, high = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--batch: {text!r} found, three numbers expected, such as 1,8,64") from None
    return low, usual, high


def sizes_from(text: str | None) -> tuple[int, ...] | None:
    """Any numbers between commas, each once; None stays None."""
    if text is None:
        return None
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise InputError(f"--batch: {text!r} found, numbers expected, such as 1,8,64") from None


def recipe_overrides(settings: Sequence[str] | None, root: Path | None, *, download: bool, cache: bool) -> list[str]:
    """--set, --data, --download and --no-cache as what `load_recipe` takes."""
    overrides = list(settings or [])
    if root is not None:
        overrides.append(f"data.root={root}")
    if download:
        overrides.append("data.download=true")
    if not cache:
        overrides.append("data.cache=false")
    return overrides


def read_recipe(name: str, overrides: Sequence[str], root: Path | None) -> Recipe:
    """The recipe, changed as asked; a folder named with --data must be of use to it."""
    # Late: the parts of training and of data that are no runtime still take time to import.
    from samdeploy.data import check_folder
    from samdeploy.train.recipe import load_recipe

    recipe = load_recipe(name, overrides)
    check_folder(recipe.data.name, root, "the recipe's", download=recipe.data.download)
    return recipe


def check_writable(option: str, path: Path) -> None:
    """Refuse a file that cannot be written, before the work that would fill it."""
    if not path.parent.is_dir():
        raise InputError(f"{option}: the folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise InputError(f"{option}: {path} is a folder; name a file")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{option}: the folder {path.parent} may not be written to; choose another")


def missing_package(error: ModuleNotFoundError, command: str) -> str:
    """Which package a command lacks, and which extra brings it."""
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    if extra == "train" and command == "export":
        extra = "export"
    cure = f"samdeploy[{extra}]" if extra else package
    return f"the package {package!r} is not installed; pip install '{cure}'"
