"""`samdeploy report`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from samdeploy.cli.app import RunsRoot, command
from samdeploy.cli.arguments import check_writable, taken


@command
def report(
    bundle: Annotated[
        Path | None, typer.Argument(help="The bundle, or its run, that made the labels; the newest if left out.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder that samdeploy label wrote; needed.", show_default=False)
    ] = None,
    input: Annotated[
        str, typer.Option("--input", metavar="INPUT", help="The INPUT given to samdeploy label; shows its images.")
    ] = "",
    column: Annotated[str, typer.Option(help="The --column given to samdeploy label.")] = "",
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page.")] = Path("labels.html"),
    timeout: Annotated[float, typer.Option(help="Seconds in which an address must answer.", min=0.1)] = 30.0,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Write a page about labels.  Classes, confidence, drift against validation, and images to look at."""
    from samdeploy.bundle import open_bundle
    from samdeploy.errors import InputError
    from samdeploy.runs.locate import bundle_of, latest_bundle

    if labels is None:
        raise InputError(
            "--labels is missing: the folder that samdeploy label wrote. For a page about an "
            "evaluation: samdeploy eval --report DIR"
        )
    check_writable("--out", out)
    from samdeploy.label.results import check_whole, input_of, labels_of
    from samdeploy.report.labels import look_at_labels
    from samdeploy.report.labels_html import write_labels_report

    opened = open_bundle(bundle_of(bundle) if bundle is not None else taken("bundle", latest_bundle(runs)))
    found = labels_of(opened, labels)
    check_whole(found, "report")
    given = input_of(found, input, column, timeout) if input else None
    line = shlex.join(["samdeploy", *sys.argv[1:]])
    write_labels_report(out, look_at_labels(found, opened, given), found, opened, line)
    print(out)
