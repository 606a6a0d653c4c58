"""`samdeploy doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samdeploy.cli.app import RunsRoot, command
from samdeploy.cli.arguments import print_as_utf8, taken


@command
def doctor(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle, or its run; the newest, if any.")] = None,
    collect: Annotated[
        Path | None,
        typer.Option(help="Train, export and evaluate digits, and write a bug report to this .zip."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Show what runs here and what is wrong.  With a bundle, every file and engine of it is checked."""
    from samdeploy.bundle.path_kind import not_a_bundle
    from samdeploy.doctor import Diagnosis, examine_bundle, examine_machine
    from samdeploy.errors import InputError
    from samdeploy.files import json_bytes
    from samdeploy.report.text.doctor import diagnosis_tables
    from samdeploy.runs.locate import bundle_of, latest_bundle

    if collect is not None:
        from samdeploy.doctor.collect import collect_report

        print(collect_report(collect))
        return
    if bundle is None:
        try:
            bundle = taken("bundle", latest_bundle(runs))
        except InputError:  # none yet: the machine is of interest alone
            bundle = None
    elif reason := not_a_bundle(bundle_of(bundle)):
        raise InputError(f"bundle {bundle}: {reason}")
    found = Diagnosis(examine_machine(), examine_bundle(bundle_of(bundle)) if bundle is not None else None)
    if as_json:
        print_as_utf8()
    print(json_bytes(found.to_json()).decode().rstrip() if as_json else diagnosis_tables(found))
    if found.problems:
        raise SystemExit(1)
