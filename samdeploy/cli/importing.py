"""`samdeploy import`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from samdeploy.cli.app import RunsRoot, command
from samdeploy.errors import InputError, check_name


@command
def import_(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="timm:NAME or torchvision:NAME, a file of weights, or an ONNX file.")
    ],
    arch: Annotated[
        str | None, typer.Option(metavar="NAME", help="Architecture of the weights: timm:NAME, sam-resnet50, ...")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Class names, one per line, in the network's order.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled images: train/ and test/, test/, one folder per class, a table or tars."),
    ] = None,
    like: Annotated[
        str | None, typer.Option("--preprocessing", metavar="NAME", help="Use this architecture's preprocessing.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="PIXELS", help="Size of the network's input: 224, or HEIGHTxWIDTH.")
    ] = None,
    resize: Annotated[
        int | None,
        typer.Option(metavar="PIXELS", help="Resize the shorter side to this before cropping to --size.", min=1),
    ] = None,
    fit: Annotated[str | None, typer.Option(help="center_crop, or squeeze the whole image.")] = None,
    filter_: Annotated[str | None, typer.Option("--filter", help="bilinear or bicubic.")] = None,
    mean: Annotated[str | None, typer.Option(metavar="R,G,B", help="Mean of RGB, 0 to 1.")] = None,
    std: Annotated[str | None, typer.Option(metavar="R,G,B", help="Standard deviation of RGB, 0 to 1.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Option of the architecture; repeatable.")
    ] = None,
    license_: Annotated[str | None, typer.Option("--license", metavar="TEXT", help="Licence of the weights.")] = None,
    trust_order: Annotated[
        bool, typer.Option("--trust-order", help="Accept --classes in another order than the sorted folders.")
    ] = False,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Import a network that was trained elsewhere.  Writes a run directory, for samdeploy export."""
    from samdeploy.bundle.spec import FITS, RESIZES

    if fit is not None:
        check_name("fit", fit, FITS)
    if filter_ is not None:
        check_name("filter", filter_, RESIZES)
    height, width = (None, None) if size is None else _size(size)
    colours = _colour("--mean", mean), _colour("--std", std)
    options = dict(_option(text) for text in settings or ())

    from samdeploy.importing.early import look_first
    from samdeploy.runs.new_folder import check_runs_root

    check_runs_root(runs)
    dataset = look_first(source, classes, data, trust_order=trust_order)

    from samdeploy.importing.importing import ImportOptions, import_network
    from samdeploy.models.preprocessing import Given

    given = Given(like, height, width, resize, fit, filter_, None, *colours)  # type: ignore[arg-type]
    wanted = ImportOptions(source, arch, options, classes, trust_order, data, given, license_)
    run = import_network(wanted, runs_root=runs, dataset=dataset)
    print(f"next: samdeploy export {run}", file=sys.stderr)
    print(run)


def _size(text: str) -> tuple[int, int]:
    try:
        height, x, width = text.partition("x")
        sides = int(height), int(width if x else height)
        if min(sides) < 1:
            raise ValueError
        return sides
    except ValueError:
        raise InputError(f"--size: {text!r} found, a number such as 224 or HEIGHTxWIDTH expected") from None


def _colour(option: str, text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option}: {text!r} found, three numbers expected, such as 0.485,0.456,0.406") from None
    return red, green, blue


def _option(text: str) -> tuple[str, str | int]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set: {text!r} found, KEY=VALUE expected, such as attention=cbam")
    return key.removeprefix("model."), int(value) if value.isdecimal() else value
