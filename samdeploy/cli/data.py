"""`samdeploy data`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from samdeploy.cli.app import BatchSize, DataRoot, Settings, Size, command
from samdeploy.cli.arguments import check_writable, read_recipe, recipe_overrides, refuse_unused

_LEAST = 0.9


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
        Path | None,
        typer.Option("--sheet", help="File for the augmented samples; <recipe>-samples.png if left out."),
    ] = None,
    from_labels: Annotated[
        Path | None,
        typer.Option("--from-labels", metavar="DIR", help="Write a table out of samdeploy label's results for IMAGES."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="With --from-labels: the table, a .csv.")] = None,
    min_probability: Annotated[
        float,
        typer.Option(
            "--min-probability", metavar="P", help="With --from-labels: leave out less certain labels; 0 to 1."
        ),
    ] = _LEAST,
) -> None:
    """Check a data set before training.  Class counts, copies in two splits, augmented samples, loading speed."""
    if from_labels is not None:
        refuse_unused(
            {"--data": root, "--batch-size": batch_size, "--size": size, "--set": settings, "--download": download}
            | {"--no-cache": not cache, "--sheet": sheet},
            "not with --from-labels, which reads no image",
        )
        _write_table(recipe, from_labels, out, min_probability)
        return
    why = "only with --from-labels DIR, a folder that samdeploy label wrote; leave it out"
    refuse_unused({"--out": out, "--min-probability": min_probability != _LEAST}, why)
    given = {"--batch-size": batch_size, "--size": size, "--data": root}
    given |= {"--download": download or None, "--no-cache": None if cache else False}
    loaded = read_recipe(recipe, recipe_overrides(settings, given), root, verb="reading")

    from samdeploy.train.look import look

    look(loaded, sheet)


def _write_table(images: str, labels: Path, out: Path | None, least: float) -> None:
    from samdeploy.errors import InputError

    if out is None:
        raise InputError("--from-labels: needs --out, such as --out table.csv")
    if out.suffix.lower() != ".csv":
        raise InputError(f"--out {out}: a .csv expected; name it so, such as --out {out.stem}.csv")
    check_writable("--out", out)
    from samdeploy.label.results import open_labels
    from samdeploy.label.training import write_training_table

    given = Path(images)
    base = given if given.is_dir() else given.parent if given.is_file() else Path()
    print(write_training_table(open_labels(labels), base, least, out), file=sys.stderr)
    print(out)
