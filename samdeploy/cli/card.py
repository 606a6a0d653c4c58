"""`samdeploy card`: what a bundle's files say, for people and for inventories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samdeploy.cli.app import RunsRoot, command
from samdeploy.cli.arguments import make_folder, taken


@command
def card(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle, or its run; the newest if left out.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to write to; the bundle's if left out.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a card that says something else.")] = False,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Write a bundle's model card (README.md) and its bill of materials (bom.cdx.json, CycloneDX)."""
    from samdeploy.bundle import open_bundle
    from samdeploy.report.card.write import write_card
    from samdeploy.runs.locate import bundle_of, latest_bundle

    opened = open_bundle(bundle_of(bundle) if bundle is not None else taken("bundle", latest_bundle(runs)))
    if out is not None:
        make_folder("--out", out)
    for path in write_card(opened, out or opened.root, force=force):
        print(path)
