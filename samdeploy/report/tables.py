"""The tables that need more than a row of `eval.json`: classes over engines, checks over engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from samdeploy.report.rows import Row, answered, engine_name

# Of more classes, the ones that changed most stand first, and the whole table can be opened.
FEW_CLASSES = 20
_MOST_CHANGED = 10


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class; `engines`: top-1 of each engine and its change from PyTorch's, percent and points."""

    label: str
    images: int
    reference_top1: float
    engines: tuple[tuple[float, float], ...]

    @property
    def largest_loss(self) -> float:
        """The most negative change, in points."""
        return min((change for _, change in self.engines), default=0.0)


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Top-1 per class; `first` holds the classes to show at once, `rows` all of them."""

    engines: tuple[str, ...]
    first: tuple[ClassRow, ...]
    rows: tuple[ClassRow, ...]


@dataclass(frozen=True, slots=True)
class CheckTable:
    """Checks of engines against themselves; `cells[check][engine]` is a check of `eval.json` or None."""

    engines: tuple[str, ...]
    checks: tuple[str, ...]
    cells: tuple[tuple[Mapping[str, Any] | None, ...], ...]


def class_table(rows: Sequence[Row]) -> ClassTable | None:
    """Classes over engines; None if no engine answered every image."""
    found = [row for row in rows if answered(row)]
    if not found:
        return None
    classes = [
        ClassRow(
            one[0]["label"],
            one[0]["images"],
            one[0]["reference_top1"],
            tuple((each["top1"], each["top1"] - each["reference_top1"]) for each in one),
        )
        for one in zip(*(row["classes"] for row in found), strict=True)
    ]
    first = classes
    if len(classes) > FEW_CLASSES:
        first = sorted(classes, key=lambda row: (row.largest_loss, row.reference_top1))[:_MOST_CHANGED]
    return ClassTable(tuple(map(engine_name, found)), tuple(first), tuple(classes))


def check_table(rows: Sequence[Row]) -> CheckTable | None:
    """Checks over engines; None if no engine was held against itself."""
    found = [row for row in rows if "checks" in row.get("consistency", ())]
    if not found:
        return None
    asked = [{check["name"]: check for check in row["consistency"]["checks"]} for row in found]
    names = tuple(dict.fromkeys(name for checks in asked for name in checks))
    return CheckTable(
        tuple(map(engine_name, found)),
        names,
        tuple(tuple(checks.get(name) for checks in asked) for name in names),
    )
