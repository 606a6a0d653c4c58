"""`samdeploy card` and `samdeploy sign`: what goes with a bundle that is handed on."""

from __future__ import annotations

import sys
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
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files that differ.")] = False,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Write a model card and a bill of materials.  README.md and bom.cdx.json (CycloneDX), into the bundle."""
    from samdeploy.bundle import open_bundle
    from samdeploy.bundle.signature import SIGNATURE_FILE, sign_again
    from samdeploy.report.card.write import write_card
    from samdeploy.runs.locate import bundle_of, latest_bundle

    opened = open_bundle(bundle_of(bundle) if bundle is not None else taken("bundle", latest_bundle(runs)))
    if out is not None:
        make_folder("--out", out)
    for path in write_card(opened, out or opened.root, force=force):
        print(path)
    if out is None and (opened.root / SIGNATURE_FILE).exists():
        print(f"if this changed the card, {sign_again(opened.root)}", file=sys.stderr)


@command
def sign(
    key: Annotated[Path, typer.Option(metavar="FILE", help="Private key in PEM, on the curve P-256, P-384 or P-521.")],
    bundle: Annotated[Path | None, typer.Argument(help="A bundle, or its run; the newest if left out.")] = None,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Sign a bundle with your key.  By OpenSSF model-signing; --trust and Classifier.open(trust=...) verify it."""
    from samdeploy.bundle import open_bundle
    from samdeploy.bundle.signature import sign_folder
    from samdeploy.runs.locate import bundle_of, latest_bundle

    opened = open_bundle(bundle_of(bundle) if bundle is not None else taken("bundle", latest_bundle(runs)))
    opened.verify()  # nobody vouches for a bundle that is damaged
    print(sign_folder(opened.root, key))
