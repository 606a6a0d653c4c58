"""Class names in images can be read."""

from __future__ import annotations

import sys

import pytest

from samdeploy.images.font import font


def test_letters_of_most_alphabets() -> None:
    pytest.importorskip("matplotlib", reason="pip install 'samdeploy[plots]'")
    letters = font(12)
    unknown = bytes(letters.getmask("\U0010ffff"))  # the box
    for letter in "äßéЖΩ":
        assert bytes(letters.getmask(letter)) != unknown, letter


def test_without_matplotlib_there_are_letters_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    letters = font.__wrapped__(12)
    assert letters.getname()[0] != "DejaVu Sans"
    assert letters.getlength("two words") > letters.getlength("twowords")
