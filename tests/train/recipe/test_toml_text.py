"""The TOML writer against the standard library's reader."""

from __future__ import annotations

import tomllib

import pytest

from samdeploy.train.recipe.toml_text import Table, toml_text


@pytest.mark.parametrize(
    "table",
    [
        {"a": "", "b": 'quote " back \\ slash', "c": "tab\tline\nreturn\r\0\x1f\x7f\x80", "d": "ü 字 😀"},
        {"a": 1e-05, "b": 1e300, "c": 0.1 + 0.2, "d": -0.0, "e": 5e-324, "f": 1e16, "g": 2.0},
        {"a": 0, "b": -7, "c": 2**62, "d": True, "e": False},
        {"a": [1.5, 2.0], "b": [], "c": ["x", "y"]},
        {"two words": 1, "ünï": 2, "": 3, "a.b": {"c d": {"e": 1}}},
        {"later": {"x": 1}, "plain": 2, "empty": {}},
    ],
)
def test_reads_back_equal(table: Table) -> None:
    back = tomllib.loads(toml_text(table))
    assert back == table
    assert str(sorted(back.items())) == str(sorted(table.items()))  # 1 == 1.0 == True, but not as text


def test_exact_text() -> None:
    text = toml_text({"name": "x", "data": {"root": "d", "options": {"on": True}}, "rate": 0.0001})
    assert text == 'name = "x"\nrate = 0.0001\n\n[data]\nroot = "d"\n\n[data.options]\non = true\n'
