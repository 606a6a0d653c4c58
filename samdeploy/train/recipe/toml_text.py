"""A small TOML writer: what recipes hold, and no more.  (The standard library reads TOML but does not write it.)"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

Scalar = str | int | float | bool
Value = Scalar | Sequence[Scalar]
Table = Mapping[str, "Value | Table"]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def toml_text(table: Table) -> str:
    """`table` as TOML 1.0: plain values first, then one section per table inside it, in the given order.

    `tomllib.loads(toml_text(table))` gives an equal table (sequences come back as lists).
    """
    return "\n".join(_lines(table, ())) + "\n"


def _lines(table: Table, path: tuple[str, ...]) -> list[str]:
    lines = [f"{_key(key)} = {_value(value)}" for key, value in table.items() if not isinstance(value, Mapping)]
    for key, value in table.items():
        if isinstance(value, Mapping):
            inner = (*path, key)
            lines += ["", f"[{'.'.join(map(_key, inner))}]", *_lines(value, inner)]
    return lines


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _string(key)


def _value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int | float):
        return repr(value)  # the shortest text that reads back as the same float; TOML accepts 1e-05, inf and nan
    return f"[{', '.join(map(_value, value))}]"


def _string(text: str) -> str:
    # JSON's escapes are TOML's, but TOML wants DEL escaped too, and forbids JSON's surrogate pairs.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
