"""Dataclasses from a file's objects: everything wrong is said at once, and a hostile file costs little."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from samdeploy.bundle.annotations import Rules
from samdeploy.bundle.fields import read, to_json
from samdeploy.errors import BundleError


@dataclass(frozen=True, slots=True)
class Inner:
    x: float
    y: int | None

    def __post_init__(self) -> None:
        if self.x == 13:
            raise BundleError("x 13 is unlucky")


@dataclass(frozen=True, slots=True)
class Outer:
    name: str = field(metadata=Rules(pattern="[a-z]+", expected="small letters"))
    kind: Literal["a", "b"] | None
    share: float = field(metadata=Rules(above=0, at_most=1))
    on: bool
    pair: tuple[float, float]
    names: tuple[str, ...]
    counts: Mapping[str, int]
    options: Mapping[str, str | int | float | bool]
    inner: Inner
    many: tuple[Inner, ...]
    perhaps: Inner | None
    later: str | None = field(default=None, metadata=Rules(optional=True))
    absent: Inner | None = field(default=None, metadata=Rules(optional=True, no_null=True))


SOUND: dict[str, Any] = {
    "name": "abc", "kind": "a", "share": 1, "on": True, "pair": [1, 2.5], "names": ["x"], "counts": {"n": 3},
    "options": {"a": "b", "c": 1, "d": 0.5, "e": False}, "inner": {"x": 1, "y": None}, "many": [{"x": 0.5, "y": 2}],
    "perhaps": None, "later": None,
}  # fmt: skip


def refusal(changes: Mapping[str, Any]) -> str:
    values = {key: value for key, value in {**SOUND, **changes}.items() if value is not ...}
    with pytest.raises(BundleError) as caught:
        read(Outer, values, "file", BundleError)
    return str(caught.value).removeprefix("file: ")


def test_what_is_written_is_read() -> None:
    made = read(Outer, SOUND, "file", BundleError)
    assert made == Outer(
        "abc", "a", 1.0, True, (1.0, 2.5), ("x",), {"n": 3}, {"a": "b", "c": 1, "d": 0.5, "e": False},
        Inner(1.0, None), (Inner(0.5, 2),), None,
    )  # fmt: skip
    assert isinstance(made.share, float)
    assert to_json(made) == SOUND
    assert read(Outer, {**SOUND, "absent": {"x": 2, "y": 1}}, "file", BundleError).absent == Inner(2.0, 1)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"name": ...}, "'name' is missing"),
        ({"name": 3}, "'name' must be small letters, integer 3 found"),
        ({"name": "A"}, "name 'A' found, small letters expected"),
        ({"kind": "c"}, "kind 'c' found, one of a, b expected"),
        ({"kind": 1}, "'kind' must be text, integer 1 found"),
        ({"share": 0}, "share 0 found, above 0 expected"),
        ({"share": 1.5}, "share 1.5 found, at most 1 expected"),
        ({"share": True}, "'share' must be a number, boolean True found"),
        ({"share": math.nan}, "'share' must be a number, number nan found"),
        ({"share": 10**400}, "'share' must be a number, integer 1000000000000000"),
        ({"on": 1}, "'on' must be true or false, integer 1 found"),
        ({"on": None}, "'on' must be true or false, null found"),
        ({"pair": [1]}, "'pair' must be a list of 2 numbers, list [1] found"),
        ({"pair": [1, "2"]}, "'pair' must be a list of 2 numbers, text '2' found at 1"),
        ({"names": "x"}, "'names' must be a list of texts, text 'x' found"),
        ({"names": [1, 2]}, "'names' must be a list of texts, integer 1 found at 0"),
        (
            {"counts": {"n": 1.5, "m": 1, "o": "p"}},
            "'counts' must map names to integers, number 1.5 found at 'n'; "
            "'counts' must map names to integers, text 'p' found at 'o'",
        ),
        ({"options": {"a": None}}, "'options' must map names to texts, numbers and booleans, null found at 'a'"),
        ({"inner": []}, "'inner' must be an object, list [] found"),
        ({"inner": {"x": 1}}, "inner: 'y' is missing"),
        ({"inner": {"x": 13, "y": 1}}, "inner: x 13 is unlucky"),
        ({"many": {}}, "'many' must be a list of objects, object {} found"),
        ({"many": [{"x": 1, "y": 2}, 3, {"x": "", "y": 2}]}, "'many[1]' must be an object, integer 3 found; many[2]: "),
        ({"perhaps": {"x": 1, "y": 2, "z": 3}}, "perhaps: unknown key 'z'. Valid: x, y"),
        ({"absent": None}, "'absent' must be an object, null found"),
        ({"nam": 1}, "unknown key 'nam'; did you mean 'name' or 'names'?"),
        (
            {"inner": {}, "nam": 1, "on": ...},
            "'on' is missing; unknown key 'nam'; did you mean 'name' or 'names'?; "
            "inner: 'x' is missing; inner: 'y' is missing",
        ),
    ],
)
def test_refused(changes: dict[str, Any], text: str) -> None:
    assert refusal(changes).startswith(text)


def test_no_object() -> None:
    with pytest.raises(BundleError, match=r"^file: list found, an object was expected$"):
        read(Outer, [], "file", BundleError)


def test_other_keys_can_be_ignored() -> None:
    found = read(Inner, {"x": 1, "y": 2, "z": 3}, "file", BundleError, ignore_other_keys=True)
    assert found == Inner(1.0, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {f"key{number}": 0 for number in range(100_000)},
        {"counts": {f"key{number}": "x" * 1000 for number in range(100_000)}},
        {"names": [0] * 1_000_000},
        {"many": [{}] * 100_000},
        {"many": [0] * 100_000},
    ],
    ids=["unknown keys", "mapping", "list", "empty objects", "no objects"],
)
def test_many_problems_are_counted_and_few_described(changes: dict[str, Any]) -> None:
    begin = time.process_time()
    text = refusal(changes)
    assert time.process_time() - begin < 2
    assert len(text) < 10_000
    assert text.endswith(" more") or len(text) < 100
