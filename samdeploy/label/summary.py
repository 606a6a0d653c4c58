"""What the parts of a labelling add up to."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samdeploy.images.walk import counted
from samdeploy.label.parts import part_path, read_counts
from samdeploy.terminal import printable


@dataclass(frozen=True, slots=True)
class Summary:
    """Of all parts that are there.

    Attributes:
        rows: of the input.
        parts: how many there are, of how many.
        labels: images by class, and `errors` those without one; together `done`.
        rejected: of those with a label.
        written: rows of the parts; fewer than `done` with --where.
        seconds: of this worker, in which it labelled `own` rows.
        first_error: that this worker met, if it met one.
    """

    rows: int
    parts: tuple[int, int]
    done: int
    labels: Mapping[str, int]
    errors: int
    rejected: int
    written: int
    own: int
    seconds: float
    first_error: str = ""

    @property
    def whole(self) -> bool:
        """Whether every row of the input is answered for."""
        return self.parts[0] == self.parts[1] and self.done == self.rows == sum(self.labels.values()) + self.errors


def summed(
    folder: Path,
    settings: Mapping[str, Any],
    parts: Sequence[int],
    rows: int,
    own: int,
    seconds: float,
    first_error: str,
) -> Summary:
    """The sum of the parts that are there.

    Args:
        parts: numbers of all of them.
        rows, own, seconds, first_error: see `Summary`.
    """
    total: Counter[str] = Counter()
    there = [number for number in parts if part_path(folder, number).is_file()]
    for number in there:
        total.update(read_counts(part_path(folder, number), number, settings))
    labels = {key.removeprefix("label "): count for key, count in total.items() if key.startswith("label ")}
    return Summary(
        rows, (len(there), len(parts)), total["rows"], labels, total["errors"], total["rejected"],
        total["written"], own, seconds, first_error,
    )  # fmt: skip


def say(found: Summary, classes: Sequence[str]) -> None:
    """Print a summary: on standard error, a few lines."""
    print(
        f"{found.done:,} of {counted(found.rows, 'row')} in {found.parts[0]} of {counted(found.parts[1], 'part')}: "
        f"{found.done - found.errors:,} labelled, {counted(found.errors, 'error')}, {found.rejected:,} rejected; "
        f"{found.own:,} now, in {found.seconds:.1f} s"
        + (f"; {found.written:,} written" if found.written < found.done else ""),
        file=sys.stderr,
    )
    most = sorted(found.labels.items(), key=lambda item: -item[1])[:5]
    if most:
        shares = ", ".join(
            f"{classes[int(index)]} {100 * count / (found.done - found.errors):.1f} %" for index, count in most
        )
        print(f"  most frequent of {counted(len(found.labels), 'class', 'classes')} found: {shares}", file=sys.stderr)
    if found.errors:
        first = f"; the first of this call: {printable(found.first_error)}" if found.first_error else ""
        if found.first_error.endswith(": no such file"):
            first += " (names are relative to the list's folder)"
        print(f"  errors are in the column error{first}", file=sys.stderr)
