"""What the annotation and the metadata of a dataclass's field demand of its value in a file."""

import dataclasses
import functools
import itertools
import operator
import re
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypedDict

# Annotation -> the types that a value may have in a file, one of them in words, and several.
_SCALARS: Mapping[Any, tuple[tuple[type, ...], str, str]] = {
    str: ((str,), "text", "texts"),
    int: ((int,), "an integer", "integers"),
    float: ((float, int), "a number", "numbers"),
    bool: ((bool,), "true or false", "booleans"),
    bool | str: ((bool, str), "true, false or text", "booleans and texts"),
    int | str: ((int, str), "an integer or text", "integers and texts"),
    str | int | float | bool: ((str, int, float, bool), "text, a number, true or false", "texts, numbers and booleans"),
}
_LIMITS = {
    "at_least": (operator.ge, "at least"),
    "at_most": (operator.le, "at most"),
    "above": (operator.gt, "above"),
    "below": (operator.lt, "below"),
}


class Rules(TypedDict, total=False):
    """What a field demands of its value beside the type, as its `metadata`.

    Attributes:
        in_memory: no key of the file.
        optional: the key may be absent.
        no_null: the key is absent where the value is None.
        at_least, at_most, above, below: limits of a number.
        pattern: regular expression for the whole of a text.
        one_of: valid texts.
        expected: in words, where the type says too little.
    """

    in_memory: bool
    optional: bool
    no_null: bool
    at_least: float
    at_most: float
    above: float
    below: float
    pattern: str
    one_of: tuple[str, ...]
    expected: str


SHA256 = Rules(pattern="[0-9a-f]{64}", expected="64 lower-case hexadecimal digits")


class Form(NamedTuple):
    """An annotation, taken apart.

    Attributes:
        shape: one value, a list of them or an object with free keys.
        of: what the values are: a scalar or a dataclass.
        types: that a scalar may have in a file; () for a dataclass.
        is_nullable: whether null is allowed.
        length: of the list; None: any.
        names: the texts that a `Literal` allows; () for any.
        words: what is expected.
    """

    shape: Literal["one", "list", "map"]
    of: Any
    types: tuple[type, ...]
    is_nullable: bool
    length: int | None
    names: tuple[str, ...]
    words: str


class Entry(NamedTuple):
    """One key of a file; `expected`: its type, in words."""

    name: str
    form: Form
    rules: Mapping[str, Any]
    expected: str
    field: dataclasses.Field[Any]


def keys_of(kind: Any) -> tuple[dataclasses.Field[Any], ...]:
    """The fields of a dataclass that stand in its file."""
    return tuple(field for field in dataclasses.fields(kind) if "in_memory" not in field.metadata)


@functools.cache
def entries_of(kind: Any) -> Mapping[str, Entry]:
    """The keys of a dataclass."""
    hints, entries = typing.get_type_hints(kind), {}
    for field in keys_of(kind):
        form, rules = _form(hints[field.name]), field.metadata
        if "no_null" in rules:
            form = form._replace(is_nullable=False)
        form = form._replace(names=rules["one_of"]) if "one_of" in rules else form
        entries[field.name] = Entry(field.name, form, rules, rules.get("expected", form.words), field)
    return entries


@functools.cache
def _form(hint: Any) -> Form:
    arguments = typing.get_args(hint)
    if types.NoneType in arguments:
        form = _form(functools.reduce(operator.or_, (one for one in arguments if one is not types.NoneType)))
        return form._replace(is_nullable=True)
    origin = typing.get_origin(hint)
    if origin is Literal:
        return _form(str)._replace(names=arguments)
    of = arguments[0] if origin is tuple else arguments[1] if origin is Mapping else hint
    types_, one, many = ((), "an object", "objects") if dataclasses.is_dataclass(of) else _SCALARS[of]
    if origin is tuple:
        length = None if arguments[-1] is Ellipsis else len(arguments)
        words = f"a list of {many if length is None else f'{length} {many}'}"
        return Form("list", of, types_, False, length, (), words)
    if origin is Mapping:
        return Form("map", of, types_, False, None, (), f"map names to {many}")
    return Form("one", of, types_, False, None, (), one)


def broken_rule(entry: Entry, value: Any) -> str:
    """What the field's rules expect instead of a value of the right type; "" if they allow it."""
    names, rules = entry.form.names, entry.rules
    if names and value not in names:
        return f"one of {', '.join(names)}"
    if "pattern" in rules and isinstance(value, str) and not re.fullmatch(rules["pattern"], value):
        return entry.expected
    for name, (holds, words) in _LIMITS.items():
        if name in rules and not holds(value, rules[name]):
            return f"{words} {rules[name]}"
    return ""


def of_wrong_type(form: Form, value: Any) -> Iterable[tuple[object, object]]:
    """The value, or items of it with their places: all of a mapping, the first of a list."""
    if value is None and form.is_nullable:
        return ()
    if form.shape == "one":
        return () if _fits(value, form.types) else ((value, None),)
    if not isinstance(value, dict if form.shape == "map" else list) or form.length not in (None, len(value)):
        return ((value, None),)
    if not form.types:
        return ()
    if isinstance(value, dict):
        return ((item, name) for name, item in value.items() if not _fits(item, form.types))
    return itertools.islice(((item, at) for at, item in enumerate(value) if not _fits(item, form.types)), 1)


def _fits(value: Any, types_: tuple[type, ...]) -> bool:
    # bool is an int in Python, but not in a file.  NaN is above no number and below none.
    kind = type(value)
    if not types_:
        return kind is dict
    return kind in types_ and (kind is str or kind is bool or abs(value) <= sys.float_info.max)
