"""`samdeploy reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samdeploy.cli.app import DataRoot, Settings, command
from samdeploy.cli.arguments import read_recipe, recipe_overrides


@command
def reproduce(
    recipe: Annotated[str, typer.Argument(help="A built-in recipe's name, or a .toml file.")] = "digits",
    count: Annotated[int, typer.Option("--runs", help="Trainings, each with a seed of its own.", min=1)] = 10,
    data: DataRoot = None,
    settings: Settings = None,
    into: Annotated[
        Path | None,
        typer.Option("--into", metavar="DIR", help="Their folder; runs/reproduce-<recipe> if left out."),
    ] = None,
) -> None:
    """Train many times, and give mean, spread and the published figure; started again, it goes on."""

    loaded = read_recipe(recipe, recipe_overrides(settings, data, download=False, cache=True), data)

    from samdeploy.train.reproduce import JSON_FILE, PICTURE_FILE
    from samdeploy.train.reproduce import reproduce as repeat

    folder = into or Path("runs") / f"reproduce-{loaded.name}"
    repeat(loaded, count=count, folder=folder)
    print(f"{folder / JSON_FILE}, {folder / PICTURE_FILE}")
