"""Tables and paragraphs of at most 80 columns, the same in a terminal, a pipe and a file.  Imports rich."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from samdeploy.terminal.escape import printable
from samdeploy.terminal.wording import NONE, count

WIDTH = 80
# A label beside a text is folded beyond this.
_LABEL = 24

Cell = str | int | None


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A heading, a rule and the rows; text that is too long is folded within its column.

    Args:
        columns: headings, each after the sign of its alignment as in Python's format strings: "<engine", ">top-1"; with
            "!" in place of "<" texts are not folded while others can be.
        rows: of one cell per column.  None is shown as "-", an int with thousands separators.
    """
    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in columns:
        is_number, is_whole = title[0] == ">", title[0] in ">!"
        found.add_column(title[1:], justify="right" if is_number else "left", no_wrap=is_whole, overflow="fold")
    found.add_row(*[Rule(characters="-", style="none")] * len(columns))
    for row in rows:
        found.add_row(*map(_cell, row))
    console = _console()
    excess = console.measure(found, options=console.options.update_width(10 * WIDTH)).maximum - WIDTH
    if 0 < excess < len(columns):  # fits with narrow gaps
        found.padding = (0, 1, 0, 0)
    return _rendered(found)


def entries(rows: Iterable[tuple[str, str]]) -> str:
    """Labels with a text beside each; a label that repeats the one above it is left out."""
    found = Table.grid(padding=(0, 2, 0, 0))
    found.add_column(max_width=_LABEL, overflow="fold")
    found.add_column(overflow="fold")
    above = ""
    for label, text in rows:
        found.add_row("" if label == above else _cell(label), _cell(text))
        above = label
    return _rendered(found)


def paragraph(text: str) -> str:
    """`text` in lines of at most 80 columns."""
    return _rendered(Text(_cell(text), overflow="fold"))


def _cell(value: Cell) -> str:
    """`value` in letters that standard output can show, so that its width is known before it is printed."""
    text = NONE if value is None else count(value) if isinstance(value, int) else printable(value)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _console() -> Console:
    """Nothing of the surroundings counts: no colour, no terminal's width, no notebook."""
    return Console(
        file=io.StringIO(), width=WIDTH, height=1, color_system=None, force_terminal=False, force_jupyter=False,
        legacy_windows=False, markup=False, emoji=False, highlight=False,
    )  # fmt: skip


def _rendered(content: RenderableType) -> str:
    console = _console()
    with console.capture() as captured:
        console.print(content)
    return "\n".join(map(str.rstrip, captured.get().splitlines()))
