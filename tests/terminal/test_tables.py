"""Tables of at most 80 columns, whatever is in them and wherever they are printed."""

from __future__ import annotations

import io
import sys

import pytest
from rich.cells import cell_len

from samdeploy.terminal.tables import WIDTH, entries, paragraph, table

LONG = "a class of a name that is far too long for a table of eighty columns, or for a file " * 2
UNBROKEN = "x" * 200
NAMES = [
    "cat",
    LONG,
    UNBROKEN,
    "猫" * 60,
    "größe",
    "\x1b[31mred\x1b[0m",
    "cat\u202egpj.exe",
    "new\nline",
    "[bold]:smile:",
]


def test_numbers_are_right_aligned_and_text_is_not() -> None:
    assert table(
        ("<class", ">images", ">top-1\n%"), [("cat", 1234, "97.50"), ("a dog", None, "8.33")]
    ).splitlines() == [
        "               top-1",
        "class  images      %",
        "-----  ------  -----",
        "cat     1,234  97.50",
        "a dog       -   8.33",
    ]


def test_columns_move_together_where_that_makes_them_fit() -> None:
    columns = [f">{'9' * 9}"] * 8
    assert table(columns, []).splitlines()[1] == " ".join(["-" * 9] * 8)
    assert table(columns[:7], []).splitlines()[1] == "  ".join(["-" * 9] * 7)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_wider_than_eighty_columns(name: str) -> None:
    made = [
        table(("<class", ">images", "<file"), [(name, 1, "short"), ("cat", 123_456_789, name)]),
        entries([(name, "text"), ("cat", name)]),
        paragraph(name),
    ]
    assert max(cell_len(line) for text in made for line in text.splitlines()) <= WIDTH
    assert all(text.replace("\n", "").isprintable() for text in made)


def test_markup_is_text() -> None:
    assert paragraph("[bold]:smile: https://example.org 3.14") == "[bold]:smile: https://example.org 3.14"


def test_folded_text_loses_no_letter() -> None:
    text = table(("<file", ">bytes"), [(UNBROKEN, 1)])
    assert text.count("x") == 200


def test_a_label_is_not_repeated() -> None:
    rows = [("onnxruntime fp32", "sound"), ("onnxruntime fp32", "noisy"), ("openvino fp32", "sound")]
    assert entries(rows).splitlines() == [
        "onnxruntime fp32  sound",
        "                  noisy",
        "openvino fp32     sound",
    ]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_letters_that_standard_output_lacks_are_counted_as_they_are_printed(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    text = table(("<class", ">images"), [("猫" * 30, 1), ("größe", 2)])
    assert text.encode(encoding) and max(map(len, text.splitlines())) <= WIDTH
    assert text.replace("\n", "").count(r"\u732b") > 20
    assert ("größe" if encoding == "latin-1" else r"gr\xf6\xdfe") in text


def test_the_surroundings_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = table(("<class", ">images"), [(LONG, 1)])
    for name, value in {"COLUMNS": "20", "TERM": "dumb", "FORCE_COLOR": "1", "JUPYTER_COLUMNS": "20"}.items():
        monkeypatch.setenv(name, value)
    assert table(("<class", ">images"), [(LONG, 1)]) == plain
    assert "\x1b" not in plain


def test_names_stay_whole_while_others_can_be_folded() -> None:
    name, text = "n" * 60, "t" * 40
    lines = table(("!name", "<text"), [(name, text)]).splitlines()
    assert name in lines[2] and "".join(line[60:].strip() for line in lines[2:]) == text
    assert max(map(cell_len, lines)) <= WIDTH
