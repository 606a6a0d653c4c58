"""`samdeploy train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from samdeploy.cli.app import BatchSize, DataRoot, Epochs, LearningRate, RunsRoot, Settings, Size, command
from samdeploy.cli.arguments import read_recipe, recipe_overrides
from samdeploy.errors import InputError


@command
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A recipe, a .toml file, or images (folder, table, tar); digits if left out. With --resume: a run.",
            metavar="RECIPE|IMAGES",
        ),
    ] = None,
    data: DataRoot = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: LearningRate = None,
    size: Size = None,
    settings: Settings = None,
    download: Annotated[bool, typer.Option("--download", help="Download the data set if it is not there.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume a stopped run; the newest if none is named.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Resume although the recipe or the images changed.")] = False,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep prepared images for the next run.")] = True,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Train a network.  Writes a run directory with the best weights.

    On several GPUs: torchrun --nproc-per-node N -m samdeploy train ...
    """
    if force and not resume:
        raise InputError("--force: only with --resume; a new training has nothing to disagree with")
    overrides = recipe_overrides(
        settings,
        {"--epochs": epochs, "--batch-size": batch_size, "--lr": lr, "--size": size, "--data": data}
        | {"--download": download or None, "--no-cache": None if cache else False},
    )
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        print(_run(recipe, overrides, data, resume=resume, force=force, runs=runs))
        return

    from samdeploy.train.distributed import joined

    with joined() as ranks:
        path = _run(recipe, overrides, data, resume=resume, force=force, runs=runs)
        if ranks.main:
            print(path)


def _run(recipe: str | None, overrides: list[str], data: Path | None, *, resume: bool, force: bool, runs: Path) -> Path:
    """The run directory.  What rank 0 finds wrong in its arguments, the other ranks need not repeat."""
    if resume:
        from samdeploy.train.checkpoints.resume import find_run
        from samdeploy.train.distributed import joined
        from samdeploy.train.loop.train import resume as go_on

        with joined() as ranks:
            return go_on(ranks.first(find_run, recipe, runs), overrides=overrides, force=force)

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        loaded = read_recipe(recipe or "digits", overrides, data)  # before PyTorch is loaded
    else:
        from samdeploy.train.distributed import joined

        with joined() as ranks:
            loaded = ranks.first(read_recipe, recipe or "digits", overrides, data)

    from samdeploy.train.loop.train import train as run_training

    return run_training(loaded, runs_root=runs)
