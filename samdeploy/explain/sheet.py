"""The contact sheet: many images at a glance, each beside its map, with the answer below."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageDraw

from samdeploy.arrays import UInt8Array
from samdeploy.explain.overlay import legend_bar
from samdeploy.images import font as lettering
from samdeploy.images.sheet import INK, PALE, PAPER, fitted, shortened

# All in pixels.
_BOX = 176  # image and map are fitted into squares of this side
_GAP = 14
_COLUMNS = 3
_TEXT, _LINE = 15, 20
_TILE_WIDTH, _TILE_HEIGHT = 2 * _BOX + 4, _BOX + 2 * _LINE + 6
_HEAD = 2 * _LINE + 20  # and a line for each further note
_BAR = (180, 14)
_WIDTH = _COLUMNS * (_TILE_WIDTH + 2 * _GAP)
# Images per sheet: ten rows make a sheet that viewers still open at once.
TILES = 30


@dataclass(frozen=True, slots=True)
class Tile:
    """One image of a sheet; `image` and `overlay` fit into the boxes of the sheet.

    Attributes:
        image, overlay: uint8 [h, w, 3] RGB.
        caption: its name.
        answer: class and probability.
    """

    image: UInt8Array
    overlay: UInt8Array
    caption: str
    answer: str


def tile(image: UInt8Array, overlay: UInt8Array, caption: str, answer: str) -> Tile:
    """A tile, with both images brought to the size of their boxes at once, so that a page is small in memory."""
    return Tile(fitted(image, _BOX), fitted(overlay, _BOX), caption, answer)


def draw_sheet(tiles: list[Tile], title: str, notes: list[str]) -> Image.Image:
    """Up to `TILES` tiles on one page.

    Args:
        tiles: at least one, in reading order.
        title: the first line.
        notes: the lines below; the first stands beside the bar that shows the colours.
    """
    rows = -(-len(tiles) // _COLUMNS)
    head = _HEAD + _LINE * (len(notes) - 1)
    page = Image.new("RGB", (_WIDTH, head + rows * (_TILE_HEIGHT + 2 * _GAP)), PAPER)
    draw = ImageDraw.Draw(page)
    font, small = lettering.font(_TEXT + 2), lettering.font(_TEXT - 1)
    draw.text((_GAP, 10), shortened(title, font, _WIDTH - 2 * _GAP), INK, font)
    page.paste(Image.fromarray(legend_bar(*_BAR)), (_GAP, 14 + _LINE + 4))
    beside = _GAP + _BAR[0] + 10
    for number, note in enumerate(notes, start=1):
        draw.text((beside, 14 + number * _LINE), shortened(note, small, _WIDTH - beside - _GAP), PALE, small)
    for index, one in enumerate(tiles):
        row, column = divmod(index, _COLUMNS)
        left = _GAP + column * (_TILE_WIDTH + 2 * _GAP)
        _draw_tile(page, draw, one, left, head + _GAP + row * (_TILE_HEIGHT + 2 * _GAP))
    return page


def _draw_tile(page: Image.Image, draw: ImageDraw.ImageDraw, one: Tile, left: int, top: int) -> None:
    for number, array in enumerate((one.image, one.overlay)):
        height, width = array.shape[:2]
        corner = left + number * (_BOX + 4) + (_BOX - width) // 2
        page.paste(Image.fromarray(array), (corner, top + (_BOX - height) // 2))
    font, bold = lettering.font(_TEXT - 1), lettering.font(_TEXT)
    below = top + _BOX + 4
    draw.text((left, below), shortened(one.answer, bold, _TILE_WIDTH), INK, bold)
    draw.text((left, below + _LINE), shortened(one.caption, font, _TILE_WIDTH, keep_end=True), PALE, font)
