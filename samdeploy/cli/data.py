"""`samdeploy data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samdeploy.cli.app import DataRoot, Settings, command
from samdeploy.cli.arguments import read_recipe, recipe_overrides


@command
def data(
    recipe: Annotated[str, typer.Argument(help="A built-in recipe's name, or a .toml file.")] = "digits",
    root: DataRoot = None,
    settings: Settings = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch the data set where it can be had.")] = False,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep prepared pictures for the next run.")] = True,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="The contact sheet's place; <recipe>-samples.png if left out.")
    ] = None,
) -> None:
    """Look before you train: class counts, copies in two splits, augmented samples, loading speed."""
    loaded = read_recipe(recipe, recipe_overrides(settings, root, download=download, cache=cache), root)

    from samdeploy.train.look import look

    look(loaded, sheet or Path(f"{loaded.name}-samples.png"))
