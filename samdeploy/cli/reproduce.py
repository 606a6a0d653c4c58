"""`samdeploy reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samdeploy.cli.app import BatchSize, DataRoot, Epochs, LearningRate, Settings, Size, command
from samdeploy.cli.arguments import read_recipe, recipe_overrides


@command
def reproduce(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE|FOLDER", help="A recipe's name, a .toml file, or a folder of images.")
    ] = "digits",
    count: Annotated[int, typer.Option("--runs", help="Number of trainings, each with its own seed.", min=1)] = 10,
    data: DataRoot = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: LearningRate = None,
    size: Size = None,
    settings: Settings = None,
    into: Annotated[
        Path | None,
        typer.Option("--into", metavar="DIR", help="Folder for these runs; runs/reproduce-<recipe> if left out."),
    ] = None,
) -> None:
    """Train with several seeds.  Prints mean, spread and the published figure; can be interrupted and started again."""
    given = {"--epochs": epochs, "--batch-size": batch_size, "--lr": lr, "--size": size, "--data": data}
    loaded = read_recipe(recipe, recipe_overrides(settings, given), data)

    from samdeploy.train.reproduce import JSON_FILE, PLOT_FILE
    from samdeploy.train.reproduce import reproduce as repeat

    folder = into or Path("runs") / f"reproduce-{loaded.name}"
    repeat(loaded, count=count, folder=folder)
    print(f"{folder / JSON_FILE}, {folder / PLOT_FILE}")
