"""What an export made, as a table of at most 80 columns."""

from __future__ import annotations

import textwrap

from samdeploy.export.pipeline import ExportResult


def export_table(result: ExportResult) -> str:
    """Parameters before and after the fold, and a row per engine with the reason below it."""
    lines = [f"{result.parameters:,} parameters as trained, {result.folded_parameters:,} folded"]
    lines.append(f"{'engine':<12} {'prec':<4} {'MB':>6}  {'state':<9} file")
    for row in result.rows:
        size = f"{row.bytes / 1e6:6.1f}" if row.path else f"{'-':>6}"
        lines.append(f"{row.engine:<12} {row.precision:<4} {size}  {row.state:<9} {row.path}")
        lines += textwrap.wrap(row.note, 78, initial_indent="  ", subsequent_indent="  ")
    return "\n".join(lines)
