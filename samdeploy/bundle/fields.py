"""Typed reading of JSON and TOML objects: every unknown, missing or mistyped key is reported at once."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from samdeploy.errors import BundleError, SamdeployError, unknown

# A hostile file must not fill the screen with its values, nor nest deeper than repr can follow.
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_MOST = 20


class Fields:
    """One object of a file, read key by key and then closed.

    >>> fields = Fields({"height": 32}, "manifest.json: preprocessing", BundleError)
    >>> fields.integer("height")
    32
    >>> fields.close()      # raises if a key was unknown, missing or of the wrong type

    Until then a wrong value reads as an empty one, so that reading goes on and `close` can tell everything.
    """

    def __init__(self, values: object, where: str, error: type[SamdeployError]) -> None:
        self._where, self._error = where, error
        if not isinstance(values, Mapping):
            raise error(f"{where}: {_kind(values)} found, an object was expected")
        self._values: Mapping[str, Any] = values
        self._asked: list[str] = []
        self._problems: list[str] = []
        self._more = 0  # problems that are counted and not described: nobody reads more than the first ones
        self._sections: list[Fields] = []

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
            self.report(f"{key!r} must be a list of texts")
            return ()
        return tuple(items)

    def numbers(self, key: str, length: int) -> tuple[float, ...]:
        items = self.items(key)
        if len(items) != length or not all(_is(item, (int, float)) for item in items):
            if key in self._values and isinstance(self._values[key], list):
                self.report(f"{key!r} must be a list of {length} numbers, {short(items)} found")
            return (1.0,) * length
        return tuple(float(item) for item in items)

    def text_map(self, key: str) -> dict[str, str]:
        return self._map(key, str, "texts")

    def integer_map(self, key: str) -> dict[str, int]:
        return self._map(key, int, "integers")

    def scalar_map(self, key: str) -> dict[str, str | int | float | bool]:
        return self._map(key, (str, int, float, bool), "texts, numbers and booleans")

    def section(self, key: str) -> Fields:
        """The object under `key`; `close` of this object closes it too."""
        before = len(self._problems)
        section = Fields(self.table(key), key, self._error)
        if len(self._problems) == before:  # else it is missing: one problem, not one for each key in it
            self._sections.append(section)
        return section

    def has(self, key: str) -> bool:
        """Whether the object has `key`, be it null."""
        return key in self._values

    def section_or_none(self, key: str) -> Fields | None:
        """As `section`; None where the value is null."""
        return None if self._values.get(key, "") is None and self._ask(key) else self.section(key)

    def sections(self, key: str) -> list[Fields]:
        """The objects in the list under `key`; `close` of this object closes them too."""
        found = []
        for index, item in enumerate(self.items(key)):
            if isinstance(item, Mapping):
                found.append(Fields(item, f"{key}[{index}]", self._error))
            else:
                self.report(f"{key}[{index}] must be an object, {_found(item)} found")
        self._sections += found
        return found

    def report(self, problem: str) -> None:
        """Let `close` tell this problem too."""
        self._problems.append(problem)

    def problems(self) -> list[str]:
        """What was wrong so far, and which keys were not asked for; at most `_MOST` of all."""
        return self._first_problems(_MOST)[0]

    def _first_problems(self, most: int) -> tuple[list[str], int]:
        """The first `most` of them, and how many there are: describing one takes its time."""
        extra = [key for key in self._values if key not in self._asked]
        found = self._problems[:most]
        found += [unknown("key", str(key)[:60], self._asked) for key in extra[: most - len(found)]]
        count = len(self._problems) + self._more + len(extra)
        for section in self._sections:
            inner, inner_count = section._first_problems(most - len(found))
            found += [f"{section._where}: {problem}" for problem in inner]
            count += inner_count
        return found, count

    def close(self) -> None:
        """Raise one error that lists everything that was wrong; nothing if all was right."""
        problems, count = self._first_problems(_MOST)
        if count > len(problems):
            problems = [*problems, f"and {count - len(problems)} more"]
        if problems:
            raise self._error(f"{self._where}: {'; '.join(problems)}")

    def _map(self, key: str, kind: Any, name: str) -> dict[str, Any]:
        table = self.table(key)
        wrong = [inner for inner, value in table.items() if not _is(value, kind)]
        for inner in wrong[:_MOST]:
            self.report(f"{key!r} must map names to {name}, {_found(table[inner])} found at {short(inner)}")
        self._more += len(wrong[_MOST:])
        for inner in wrong:
            del table[inner]
        return table

    def _ask(self, key: str) -> bool:
        self._asked.append(key)
        return key in self._values

    def _get(self, key: str, kind: Any, name: str, default: Any) -> Any:
        if not self._ask(key):
            self.report(f"{key!r} is missing")
            return default
        value = self._values[key]
        if not _is(value, kind):
            self.report(f"{key!r} must be {name}, {_found(value)} found")
            return default
        return value


def check_format(values: Mapping[str, Any], name: str, version: int, where: str) -> None:
    """Refuse a file of another kind or of a newer version, before any other field is looked at.

    Raises:
        BundleError: it is one of these.
    """
    found_name, found_version = values.get("format"), values.get("version")
    if found_name != name:
        raise BundleError(f"{where}: format {short(found_name)} found, {name!r} expected")
    if not isinstance(found_version, int) or isinstance(found_version, bool) or found_version < 1:
        raise BundleError(f"{where}: version {short(found_version)} found, an integer of at least 1 expected")
    if found_version > version:
        raise BundleError(
            f"{where}: format version {found_version} found, this samdeploy reads up to {version}; "
            "update it: pip install -U samdeploy"
        )


def short(value: object) -> str:
    """`repr`, cut to what fits into a message."""
    return _SHORT.repr(value)


def _is(value: object, kind: Any) -> bool:
    # bool is an int in Python, but not in a file.
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _found(value: object) -> str:
    return "null" if value is None else f"{_kind(value)} {short(value)}"


def _kind(value: object) -> str:
    names = {dict: "object", list: "list", str: "text", bool: "boolean", int: "integer", float: "number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
