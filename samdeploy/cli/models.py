"""`samdeploy models`."""

from __future__ import annotations

from typing import Annotated

import typer

from samdeploy.cli.app import command


@command
def models(
    pattern: Annotated[
        str | None, typer.Argument(metavar="PATTERN", help="Such as 'timm:*resnet*'; the families if left out.")
    ] = None,
) -> None:
    """List architectures to import or to train.  With sizes, filters, crops and licenses of published weights."""
    from samdeploy.models.catalogue import COUNTED_CLASSES, MOST_COUNTED, family_sizes, find_architectures
    from samdeploy.terminal.tables import table

    if pattern is None:
        print(table(("<family", ">architectures"), family_sizes().items()))
        print("\nlist some: samdeploy models 'timm:*resnet*'")
        return
    found = find_architectures(pattern)
    columns = ["!architecture", ">pixels", "!filter", ">crop,\n%", "<license"]
    rows: list[list[str | int | None]] = [[row.name, *row.images(), row.license] for row in found]
    if len(found) <= MOST_COUNTED:
        columns.insert(-1, ">parameters")
        for cells, row in zip(rows, found, strict=True):
            cells.insert(-1, row.parameters)
    print(table(columns, rows))
    if len(found) <= MOST_COUNTED:
        print(f"\nparameters with {COUNTED_CLASSES:,} classes")
