"""Typed reading of JSON and TOML objects: every unknown, missing or mistyped key is reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samdeploy.errors import SamdeployError, unknown


class Fields:
    """One object of a file, read key by key and then closed.

    >>> fields = Fields({"height": 32}, "manifest.json: preprocessing", BundleError)
    >>> fields.integer("height")
    32
    >>> fields.close()      # raises if a key was unknown, missing or of the wrong type
    """

    def __init__(self, values: object, where: str, error: type[SamdeployError]) -> None:
        self._where, self._error = where, error
        if not isinstance(values, Mapping):
            raise error(f"{where}: {_kind(values)} found, an object was expected")
        self._values: Mapping[str, Any] = values
        self._asked: list[str] = []
        self._problems: list[str] = []

    def text(self, key: str) -> str:
        return str(self._get(key, str, "text", ""))

    def text_or_none(self, key: str) -> str | None:
        return None if self._values.get(key, "") is None and self._ask(key) else self.text(key)

    def integer(self, key: str) -> int:
        return int(self._get(key, int, "an integer", 0))

    def integer_or_none(self, key: str) -> int | None:
        return None if self._values.get(key, 0) is None and self._ask(key) else self.integer(key)

    def number(self, key: str) -> float:
        return float(self._get(key, (int, float), "a number", 0.0))

    def number_or_none(self, key: str) -> float | None:
        return None if self._values.get(key, 0) is None and self._ask(key) else self.number(key)

    def items(self, key: str) -> list[Any]:
        return list(self._get(key, list, "a list", []))

    def table(self, key: str) -> dict[str, Any]:
        return dict(self._get(key, dict, "an object", {}))

    def texts(self, key: str) -> tuple[str, ...]:
        items = self.items(key)
        if not all(isinstance(item, str) for item in items):
            self._problems.append(f"{key!r} must be a list of texts")
            return ()
        return tuple(items)

    def numbers(self, key: str, length: int) -> tuple[float, ...]:
        items = self.items(key)
        if len(items) != length or not all(_is(item, (int, float)) for item in items):
            self._problems.append(f"{key!r} must be a list of {length} numbers, {items!r} found")
            return (1.0,) * length
        return tuple(float(item) for item in items)

    def text_map(self, key: str) -> dict[str, str]:
        table = self.table(key)
        if not all(isinstance(value, str) for value in table.values()):
            self._problems.append(f"{key!r} must map names to texts")
            return {}
        return table

    def close(self) -> None:
        """Raise one error that lists everything that was wrong; nothing if all was right."""
        extra = [key for key in self._values if key not in self._asked]
        self._problems += [unknown("key", str(key), self._asked) for key in extra]
        if self._problems:
            raise self._error(f"{self._where}: {'; '.join(self._problems)}")

    def _ask(self, key: str) -> bool:
        self._asked.append(key)
        return key in self._values

    def _get(self, key: str, kind: Any, name: str, default: Any) -> Any:
        if not self._ask(key):
            self._problems.append(f"{key!r} is missing")
            return default
        value = self._values[key]
        if not _is(value, kind):
            self._problems.append(f"{key!r} must be {name}, {_kind(value)} {value!r} found")
            return default
        return value


def _is(value: object, kind: Any) -> bool:
    # bool is an int in Python, but not in a file.
    return isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)


def _kind(value: object) -> str:
    names = {dict: "object", list: "list", str: "text", bool: "boolean", int: "integer", float: "number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
