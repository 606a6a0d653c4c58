"""One engine's row of `eval.json` in the words of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Row = Mapping[str, Any]
Kind = Literal["good", "bad", "open", "none"]


@dataclass(frozen=True, slots=True)
class Status:
    """What became of an engine: a sign, a word, and the kind that chooses the colour; colour is never alone."""

    mark: str
    word: str
    kind: Kind


def engine_name(row: Row) -> str:
    """ "openvino int8"; with its device where that is not the processor."""
    device = row["device"]
    return f"{row['backend']} {row['precision']}" + (f" ({device})" if device not in ("", "cpu") else "")


def answered(row: Row) -> bool:
    """Whether the engine answered every test picture."""
    return row.get("top1") is not None


def status(row: Row) -> Status:
    """What became of the engine."""
    if not row["ran"]:
        return Status("-", "not run here", "none")
    if not answered(row) or row["verdict"] is None:
        return Status("✗", "stopped", "bad")
    if row["passed"]:
        return Status("✓", "holds", "good")
    return Status("?", "cannot tell", "open") if row["verdict"] == "cannot tell" else Status("✗", "fails", "bad")


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
