"""Dataclasses from JSON and TOML objects: their annotations are the only list of a file's keys and types.

Every unknown, missing or mistyped key is reported at once.  A dataclass may hold texts, numbers, booleans and
`Literal`s, tuples and mappings of them, other dataclasses and tuples of those, each also "or None".  What an annotation
cannot express, the field says in its `metadata`, see `samdeploy.bundle.annotations.Rules`.
"""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from samdeploy.bundle.annotations import Entry, Form, broken_rule, entries_of, keys_of, of_wrong_type
from samdeploy.errors import BundleError, SamdeployError, unknown

T = TypeVar("T")

# A hostile file must not fill the screen with its values, nor nest deeper than repr can follow.
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
# Describing a problem takes its time, and nobody reads more than the first ones.
_MOST = 20


def read(
    kind: type[T], values: object, where: str, error: type[SamdeployError], *, ignore_other_keys: bool = False
) -> T:
    """A dataclass from an object of a JSON file, which must have all of its keys.

    Args:
        values: as `samdeploy.files.read_json` returns them.
        where: the file, and the place in it; opens the text of errors.
        error: what to raise.
        ignore_other_keys: accept keys that the dataclass does not have.

    Raises:
        SamdeployError: of the kind `error`; lists everything that is wrong.  The first `_MOST` problems are described,
            the others counted.
    """
    return Reader(ignore_other_keys=ignore_other_keys).read(kind, values, where, error)


def to_json(value: Any) -> Any:
    """What `read` reads back as `value`: dataclasses and mappings as dictionaries, tuples as lists."""
    if dataclasses.is_dataclass(value):
        items = ((field, getattr(value, field.name)) for field in keys_of(value))
        return {
            field.name: to_json(item) for field, item in items if item is not None or "no_null" not in field.metadata
        }
    if isinstance(value, Mapping):
        return {name: to_json(item) for name, item in value.items()}
    return [to_json(item) for item in value] if isinstance(value, list | tuple) else value


class Reader:
    """Reads one file and collects what is wrong with it; a subclass changes which keys may be absent, and the words.

    Attributes:
        problems: the first ones, in words.
        count: of all problems.
    """

    def __init__(self, *, ignore_other_keys: bool = False) -> None:
        self.problems: list[str] = []
        self.count = 0
        self._ignores_other_keys = ignore_other_keys

    def read(self, kind: type[T], values: object, where: str, error: type[SamdeployError]) -> T:
        """As the function `read`."""
        if not isinstance(values, dict):
            raise error(f"{where}: {_kind(values)} found, an object was expected")
        made: T = self._section(kind, values, "")
        if self.count:
            raise error(f"{where}: {self.text()}")
        return made

    def report(self, describe: Callable[..., str], *arguments: Any) -> None:
        """Count a problem; only one of the first is described, by `describe(*arguments)`."""
        self.count += 1
        if len(self.problems) < _MOST:
            self.problems.append(describe(*arguments))

    def text(self) -> str:
        """All problems in one line."""
        more = [f"and {self.count - len(self.problems)} more"] if self.count > len(self.problems) else []
        return "; ".join([*self.problems, *more])

    def may_be_absent(self, field: dataclasses.Field[Any]) -> bool:
        """Whether a file may leave the key out."""
        return "optional" in field.metadata

    def unknown_key(self, section: str, name: str, value: object, valid: Iterable[str]) -> str:
        """The words for a key that the dataclass lacks."""
        return _in(section, unknown("key", name[:60], valid))

    def wrong_type(self, section: str, name: str, value: object, expected: str, at: object = None) -> str:
        """The words for a value of the wrong type; `at`: the place of an item in its list or mapping."""
        place = "" if at is None else f" at {short(at)}"
        must = expected if expected.startswith("map ") else f"be {expected}"
        return _in(section, f"{name!r} must {must}, {_found(value)} found{place}")

    def wrong_value(self, section: str, name: str, value: object, expected: str) -> str:
        """The words for a value that its rules do not allow."""
        return _in(section, f"{name} {short(value)} found, {expected} expected")

    def objections(self, section: str, name: str, value: Any) -> Iterable[str]:
        """What is wrong with a value that follows its rules."""
        return ()

    def contradictions(self, section: str, made: object) -> Iterable[str]:
        """What is wrong with a section whose every value is right."""
        return ()

    def _section(self, kind: Any, values: Mapping[str, Any], section: str) -> Any:
        """The dataclass; None where something is wrong.  Problems of the sections inside come after its own."""
        before, entries, made = self.count, entries_of(kind), dict[str, Any]()
        for name, entry in entries.items():
            if name in values:
                made[name] = self._key(entry, values[name], section)
            elif not self.may_be_absent(entry.field):
                self.report(_in, section, f"{name!r} is missing")
        if not self._ignores_other_keys:
            for name in values:
                if name not in entries:
                    self.report(self.unknown_key, section, name, values[name], entries)
        for name, value in made.items():
            if not entries[name].form.types and value is not None:
                made[name] = self._inner(entries[name].form, name, value, section)
        if self.count > before:
            return None
        try:
            found = kind(**made)
        except SamdeployError as error:
            self.report(_in, section, str(error).removeprefix(f"{section}: "))
            return None
        for problem in self.contradictions(section, found):
            self.report(str, problem)
        return found if self.count == before else None

    def _key(self, entry: Entry, value: Any, section: str) -> Any:
        """A value as the dataclass wants it; None where it is wrong; what sections are made of as it is."""
        name, form, before = entry.name, entry.form, self.count
        for found, place in of_wrong_type(form, value):
            self.report(self.wrong_type, section, name, found, entry.expected, place)
        if value is None or self.count > before:
            return None
        if not form.types or form.shape == "map":
            return value
        if form.shape == "list":
            return tuple(map(float, value) if form.of is float else value)
        if (entry.rules or form.names) and (expected := broken_rule(entry, value)):
            self.report(self.wrong_value, section, name, value, expected)
        for problem in self.objections(section, name, value):
            self.report(str, problem)
        return float(value) if form.of is float else value

    def _inner(self, form: Form, name: str, value: Any, section: str) -> Any:
        """The dataclass, or the tuple of them, that a value of the right type holds."""
        if form.shape == "one":
            return self._section(form.of, value, _place(section, name))
        made = []
        for index, item in enumerate(value):
            if isinstance(item, dict):
                made.append(self._section(form.of, item, _place(section, f"{name}[{index}]")))
            else:
                self.report(self.wrong_type, section, f"{name}[{index}]", item, "an object")
        return tuple(made)


def _place(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def _in(section: str, problem: str) -> str:
    return f"{section}: {problem}" if section else problem


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
            f"{where}: format version {found_version} found, this samdeploy reads up to {version}; update samdeploy"
        )


def short(value: object) -> str:
    """`repr`, cut to what fits into a message."""
    return _SHORT.repr(value)


def _found(value: object) -> str:
    return "null" if value is None else f"{_kind(value)} {short(value)}"


def _kind(value: object) -> str:
    names = {dict: "object", list: "list", str: "text", bool: "boolean", int: "integer", float: "number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
