"""Colours of a signed map, and names of the files."""

from __future__ import annotations

import numpy as np
import pytest

from samdeploy.explain.names import UniqueNames, image_text

pytest.importorskip("matplotlib", reason="pip install 'samdeploy[plots]'")

from samdeploy.explain.overlay import colours, legend_bar, overlay
from samdeploy.explain.sheet import TILES, draw_sheet, tile

GREEN = np.zeros((3, 5, 3), np.uint8)
GREEN[:, :, 1] = 200


def draw(value: float, *, scale: float = 2.0, seen: bool = True) -> list[int]:
    values = np.full((3, 5), value, np.float32)
    drawn = overlay(GREEN, values, np.full((3, 5), seen), scale)
    assert drawn.dtype == np.uint8 and drawn.shape == (3, 5, 3)
    assert (drawn == drawn[0, 0]).all()
    return [int(level) for level in drawn[0, 0]]


def test_red_is_high_blue_is_low_and_zero_is_the_image_in_grey() -> None:
    red, green, blue = draw(2.0)
    assert red > blue + 60 and red > green + 60
    red, green, blue = draw(-2.0)
    assert blue > red + 60 and blue > green + 60
    assert draw(0.0) == [117, 117, 117]  # 0.587 * 200: colour is the map's alone
    assert draw(1e9) == draw(2.0)
    weak, strong = draw(0.5), draw(1.5)
    assert weak[0] - weak[2] < strong[0] - strong[2]


def test_the_scale_is_the_callers() -> None:
    assert draw(1.0, scale=1.0) == draw(2.0, scale=2.0) != draw(1.0, scale=2.0)


def test_what_was_not_seen_is_washed_out_whatever_the_map_says() -> None:
    level = draw(2.0, seen=False)
    assert level == draw(-2.0, seen=False)
    assert level[0] == level[1] == level[2] > 200


def test_the_bar_runs_from_blue_to_red() -> None:
    bar = legend_bar(101, 4).astype(int)
    assert bar[0, 0, 2] > bar[0, 0, 0] + 60
    assert bar[0, 100, 0] > bar[0, 100, 2] + 60
    assert np.ptp(bar[0, 50]) == 0
    np.testing.assert_array_equal(colours(np.array([-1, 1], np.float32))[0], [58, 76, 192])  # matplotlib's coolwarm


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("cat", "cat"),
        ("../../etc/passwd", "etc_passwd"),
        ("/absolute", "absolute"),
        ("T-shirt/top", "T-shirt_top"),
        ("a\0b\nc", "a_b_c"),
        ("..", "fallback"),
        ("", "fallback"),
        (".hidden", "hidden"),
        ("Größe 7", "Größe_7"),
        ("犬", "犬"),
        ("\udcff\udcfe", "fallback"),  # a file name that is not UTF-8
        ("C:\\x", "C__x"),
    ],
)
def test_plain_names(text: str, name: str) -> None:
    assert UniqueNames().take(text, "fallback") == name


def test_no_name_is_given_twice() -> None:
    names = UniqueNames()
    taken = [names.take(text, "x") for text in ("a/b", "a_b", "A_B", "a b", "a_b-2", "", "?", "é", "e\u0301")]
    assert taken == ["a_b", "a_b-2", "A_B-3", "a_b-4", "a_b-2-2", "x", "x-2", "é", "é-2"]


def test_long_names_fit_a_file_system(tmp_path) -> None:
    names = UniqueNames()
    first, second = names.take("犬" * 300, "x"), names.take("犬" * 300, "x")
    (tmp_path / f".{first}.{second}.png.12345678").touch()
    assert first != second


def test_what_a_image_is_called_after() -> None:
    assert image_text("train/cat.1.jpg") == "train/cat.1"
    assert image_text("noending") == "noending"
    assert image_text(".png") == ".png"


def test_a_sheet_of_one_and_of_many() -> None:
    wide, high = np.full((10, 900, 3), 30, np.uint8), np.full((500, 7, 3), 60, np.uint8)
    one = tile(wide, wide, "a very long name " * 20 + "end.png", "class " * 50)
    page = draw_sheet([one], "title", ["note"])
    many = draw_sheet([one, tile(high, high, "b\nc", "")] * (TILES // 2), "title " * 200, ["note " * 200] * 2)
    assert page.width == many.width
    assert page.height < many.height / 5
    pixels = np.asarray(many)
    assert (pixels[:, -8:] == 255).all() and (pixels[-8:] == 255).all()  # no text runs out of the page
    assert (np.asarray(page) == 30).all(axis=2).any()
