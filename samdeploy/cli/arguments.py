"""What several commands do with what the user typed: refuse it in words, or say what was taken instead.

Loads neither numpy nor any runtime: `samdeploy --help` imports this file.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from samdeploy.errors import InputError

if TYPE_CHECKING:
    from samdeploy.train.recipe.recipe import Recipe

# An option -> the recipe's key that it stands for.
OPTION_KEYS = {
    "--epochs": "training.epochs",
    "--batch-size": "training.batch_size",
    "--lr": "training.learning_rate",
    "--size": "image.size",
    "--data": "data.root",
    "--download": "data.download",
    "--no-cache": "data.cache",
}
# What to write instead of an unknown option where no key is like it.
GENERAL_HINT = "values of the recipe are changed with --set KEY=VALUE"
# Which of our extras brings a package: to a command that has one of its own, and to all others.
_OF_COMMAND = {
    ("label", "pyarrow"): "label",
    ("report", "pyarrow"): "label,report",
    ("report", "scipy"): "label,report",
    ("card", "scipy"): "report",
}
_EXTRAS = {
    **dict.fromkeys(("torch", "torchvision", "safetensors", "sklearn", "scipy", "tomlkit"), "train"),
    **{package: package for package in ("onnxruntime", "openvino", "tensorrt")},
    **dict.fromkeys(("onnx", "onnxscript"), "export"),
    "matplotlib": "plots",
    "jinja2": "report",
    "pyarrow": "parquet",
    "fsspec": "label",
    "aiohttp": "label",
    **dict.fromkeys(("model_signing", "cryptography", "OpenSSL"), "sign"),
    **dict.fromkeys(
        ("starlette", "uvicorn", "httptools", "prometheus_client", "python_multipart", "grpc", "google"), "serve"
    ),
}


def refuse_unused(given: Mapping[str, object], why: str) -> None:
    """Refuse the first option that was given, though the command would not use it."""
    for option, value in given.items():
        if value is not None and value is not False:  # --size 0 is given
            raise InputError(f"{option}: {why}")


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


def sizes_from(text: str | None, option: str = "--batch") -> tuple[int, ...] | None:
    """Any numbers between commas, each once; None stays None."""
    if text is None:
        return None
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise InputError(f"{option}: {text!r} found, numbers expected, such as 1,8,64") from None


def shard_of(text: str) -> tuple[int, int]:
    """ "3/64" -> (3, 64).

    Raises:
        InputError: it is no such text, or the first is not among 1 to the second.
    """
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and len(text) < 16 and 1 <= int(number) <= int(count)):
        raise InputError(f"--shard: {text!r} found, part I of N expected, such as 3/64")
    return int(number), int(count)


def recipe_overrides(settings: Sequence[str] | None, given: Mapping[str, object]) -> list[str]:
    """--set and the options that stand for a recipe's key, as what `load_recipe` takes.

    Args:
        settings: of --set.
        given: key of `OPTION_KEYS` -> value; None was not given.

    Raises:
        InputError: an option and --set give the same key.
    """
    # Late: the parts of training and of data that are no runtime still take time to import.
    from samdeploy.train.recipe.overrides import overridden

    result = list(settings or [])
    for option, value in given.items():
        if value is not None:
            override = f"{OPTION_KEYS[option]}={str(value).lower() if isinstance(value, bool) else value}"
            if both := sorted(overridden([override]) & overridden(settings or [])):
                raise InputError(f"{option} and --set: both give {both[0]}; leave one out")
            result.append(override)
    return result


def read_recipe(name: str, overrides: Sequence[str], root: Path | None, *, verb: str = "training on") -> Recipe:
    """The recipe, changed as asked; a folder named with --data must be of use to it.

    Args:
        name: of a recipe, or the path of a .toml file or of a folder of images.
        overrides: as `recipe_overrides` gives them.
        root: of --data.
        verb: what the command does with a folder of images.
    """
    from samdeploy.data import check_folder
    from samdeploy.train.recipe.load import load_recipe
    from samdeploy.train.recipe.overrides import overridden
    from samdeploy.train.recipe.source import FOLDER_RECIPE, is_folder_of_images, recipe_names

    if is_folder_of_images(name):
        if "data.root" in overridden(overrides):
            other = "--set data.root" if root is None else f"--data {root}"
            raise InputError(f"{name} and {other}: both name the images; leave one out")
        print(f"{verb} the images in {name} (recipe {FOLDER_RECIPE!r})", file=sys.stderr)
    elif name in recipe_names() and Path(name).is_dir():
        print(f"{name}: taken for the recipe; the folder of this name is ./{name}", file=sys.stderr)
    recipe = load_recipe(name, overrides)
    check_folder(recipe.data.name, root, "the recipe's", download=recipe.data.download)
    return recipe


def no_such_option(option: str, own_options: Iterable[str]) -> str:
    """What to write instead of an option that a command with --set lacks; "" if nobody can tell.

    >>> no_such_option("--learning-rate", ["--lr", "--set"])
    'use --lr or --set training.learning_rate=VALUE'
    """
    from samdeploy.train.recipe.overrides import keys_like, overridden

    keys = keys_like(option.lstrip("-").replace("-", "_"))
    names = ("image.size",) if set(keys) == overridden(["size"]) else keys
    short = [own for own in own_options if own in OPTION_KEYS and overridden([OPTION_KEYS[own]]) >= set(keys)]
    return "use " + " or ".join([*short, *(f"--set {name}=VALUE" for name in names)]) if keys else ""


def check_writable(option: str, path: Path) -> None:
    """Refuse a file that cannot be written, before the work that would fill it."""
    if not path.parent.is_dir():
        raise InputError(f"{option}: the folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise InputError(f"{option}: {path} is a folder; name a file")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{option}: the folder {path.parent} may not be written to; choose another")


def make_folder(option: str, folder: Path) -> bool:
    """Make a folder where it is missing, and prove that files can be written there.

    Returns:
        Whether it was made here.

    Raises:
        InputError: it is a file, or cannot be made or written to.
    """
    if folder.suffix in (".html", ".json", ".xml") or folder.name.startswith("--"):
        raise InputError(f"{option}: {folder} found, a folder expected; files are written into it")
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f"{option}: {folder} is a file; name a folder") from None
    except OSError as error:
        raise InputError(f"{option}: {folder} cannot be made ({error.strerror}); name another folder") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{option}: the folder {folder} may not be written to; name another")
    return is_new


def print_as_utf8() -> None:
    """What is printed from now on is UTF-8, as JSON must be (RFC 8259), whatever the encoding of the terminal."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")


def missing_package(error: ModuleNotFoundError, command: str) -> str:
    """Which package a command lacks, and which extra brings it."""
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    extra = _OF_COMMAND.get((command, package), extra)
    if extra == "train" and command == "export":
        extra = "export"
    if extra is not None and command == "demo-bundle":
        extra = "train,export"
    cure = f"samdeploy[{extra}]" if extra else package
    return f"the package {package!r} is not installed; pip install '{cure}'"
