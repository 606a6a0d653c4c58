"""`samdeploy data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samdeploy.cli.app import BatchSize, DataRoot, Settings, Size, command
from samdeploy.cli.arguments import read_recipe, recipe_overrides


@command
def data(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE|IMAGES", help="A recipe's name, a .toml file, or images.")
    ] = "digits",
    root: DataRoot = None,
    batch_size: BatchSize = None,
    size: Size = None,
    settings: Settings = None,
    download: Annotated[bool, typer.Option("--download", help="Download the data set if it is not there.")] = False,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep prepared images for the next run.")] = True,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="Where to write the sheet; <recipe>-samples.png if left out.")
    ] = None,
) -> None:
    """Look before you train: class counts, copies in two splits, augmented samples, loading speed."""
    given = {"--batch-size": batch_size, "--size": size, "--data": root}
    given |= {"--download": download or None, "--no-cache": None if cache else False}
    loaded = read_recipe(recipe, recipe_overrides(settings, given), root, verb="reading")

    from samdeploy.train.look import look

    look(loaded, sheet)
