"""`samdeploy demo-bundle`: scikit-learn's digits, trained and exported here, and images to ask about."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from samdeploy.cli.app import command
from samdeploy.errors import InputError

# Of the recipe "digits"; fp32 on the CPU needs no trial of what is faster.
SETTINGS = ("training.epochs=5", "training.precision=fp32", "training.device=cpu", "data.cache=false")
IMAGES_PER_CLASS = 2
# Of the extras train and export; some are imported only after the training.
PACKAGES = ("torch", "torchvision", "safetensors", "sklearn", "scipy", "tomlkit", "onnx", "onnxruntime")


@command
def demo_bundle(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that does not exist yet, or is empty.")],
) -> None:
    """Make a small bundle to try things with.  Digits, trained here in about a minute, and images of them.

    Needs the extras train and export: pip install 'samdeploy[train,export]'.
    """
    check_new_folder(folder)
    bundle, images = make_demo(folder)
    print(f"next: samdeploy predict {bundle} {images}", file=sys.stderr)
    print(f"      samdeploy serve {bundle.parent}", file=sys.stderr)
    print(f"      samdeploy label {bundle} {images} --out {folder / 'labels'}", file=sys.stderr)
    print(bundle)


def check_new_folder(folder: Path) -> None:
    """Refuse a folder that something lies in, before anything is loaded or trained.

    Raises:
        InputError: it is a file, or not empty.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a new folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty; name a new folder, or empty it")
    if not folder.absolute().parent.is_dir():
        raise InputError(f"{folder}: the folder {folder.absolute().parent} does not exist; make it first")
    if not os.access(folder if folder.is_dir() else folder.absolute().parent, os.W_OK):
        raise InputError(f"{folder}: nothing can be written there; name another place")


def make_demo(folder: Path) -> tuple[Path, Path]:
    """Train and export the digits: a real network, though nobody has evaluated its engine yet (`samdeploy eval`).

    Returns:
        `folder/digits/bundle` and `folder/images`: images of the test split, called as their class: "3-1.png".

    Raises:
        InputError: see `check_new_folder`.
        ModuleNotFoundError: one of `PACKAGES` is not installed.
        SamdeployError: as training and export do.
    """
    check_new_folder(folder)
    for package in PACKAGES:  # what is missing is known before anything is made
        import_module(package)
    is_new = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:  # a link that leads nowhere, a file system of the kernel's
        raise InputError(f"{folder}: cannot be made ({error.strerror}); name another folder") from None
    try:
        return _filled(folder)
    except BaseException:
        for path in (*folder.glob("digits*"), folder / "images"):  # what others put there meanwhile is theirs
            shutil.rmtree(path, ignore_errors=True)
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        print(f"{folder}: what was made there is removed, since it was not finished; start again", file=sys.stderr)
        raise


def _filled(folder: Path) -> tuple[Path, Path]:
    from PIL import Image

    from samdeploy.data import open_dataset
    from samdeploy.export import ExportOptions, export_run
    from samdeploy.train.loop.train import train
    from samdeploy.train.recipe.load import load_recipe

    recipe = load_recipe("digits", list(SETTINGS))
    run = train(recipe, runs_root=folder, resumable=False).rename(folder / "digits")
    bundle = export_run(run, ExportOptions("onnxruntime", small=True)).bundle
    data = open_dataset("digits", val_fraction=recipe.data.val_fraction, seed=recipe.data.split_seed)
    images = folder / "images"
    images.mkdir()
    seen = dict.fromkeys(data.classes, 0)
    for index, label in enumerate(data.test.labels.tolist()):
        name = data.classes[label]
        if seen[name] < IMAGES_PER_CLASS:
            seen[name] += 1
            Image.fromarray(data.test.load(index)).save(images / f"{name}-{seen[name]}.png")
    return bundle, images
