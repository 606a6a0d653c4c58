"""The rows of a comparison with the alternatives, and their JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from samdeploy.bench.turns import Ratio


@dataclass(frozen=True, slots=True)
class Row:
    """One engine.

    Attributes:
        name: of the runtime and how it got the network.
        ours: whether it is an engine of the bundle.
        ran: whether it was timed to the end; then `reason` is "".
        p50_ms, p10_ms, p90_ms: of a batch, over the rounds; a tool reports one figure only.
        times_base: how many times as fast as the base, within each round.
        difference: largest difference from the golden logits, as a share of its image's range.
        note: what a tool's figure is.
    """

    name: str
    ours: bool
    ran: bool = False
    reason: str = ""
    p50_ms: float | None = None
    p10_ms: float | None = None
    p90_ms: float | None = None
    times_base: Ratio | None = None
    difference: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows at one batch size.

    Attributes:
        batch: images per run.
        rounds: in which each took one turn.
        base: name of the fastest alternative that took turns, or of our fastest engine where none could; "" if none
            ran.
    """

    batch: int
    rounds: int
    base: str
    rows: tuple[Row, ...]


def notes(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """(engine, what the reader should know of its row)."""
    for row in comparison.rows:
        if row.reason or row.note:
            yield row.name, row.reason or row.note


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """As documented in docs/files.md."""
    rows = [
        {
            "engine": row.name,
            "ours": row.ours,
            "ran": row.ran,
            "reason": row.reason,
            "note": row.note,
            "p50_ms": row.p50_ms,
            "p10_ms": row.p10_ms,
            "p90_ms": row.p90_ms,
            "times_base": row.times_base and row.times_base.median,
            "times_base_p10": row.times_base and row.times_base.p10,
            "times_base_p90": row.times_base and row.times_base.p90,
            "max_difference_of_range": row.difference,
        }
        for row in comparison.rows
    ]
    return {"batch": comparison.batch, "rounds": comparison.rounds, "base": comparison.base or None, "rows": rows}
