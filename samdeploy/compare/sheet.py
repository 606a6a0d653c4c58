"""Contact sheets of the images that tell two networks apart: where one alone is right, or the answers differ."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from samdeploy.arrays import UInt8Array
from samdeploy.compare.answers import Differing
from samdeploy.compare.images import ImageSet
from samdeploy.compare.result import CompareReport
from samdeploy.files import write_atomic
from samdeploy.images import font as lettering
from samdeploy.images.sheet import INK, PALE, PAPER, fitted, shortened
from samdeploy.progress import progress_bar

# All in pixels.
_BOX, _GAP, _TEXT, _LINE = 176, 14, 15, 20
_COLUMNS, _LINES = 6, 4
_WIDTH, _HEIGHT = _COLUMNS * (_BOX + _GAP) + _GAP, _BOX + _LINES * _LINE + 2 * _GAP
_HEAD = 2 * _LINE + 10
# Images per sheet: five rows, and sheets: nobody looks through more, and compare.json lists all.
TILES, MOST_SHEETS = 30, 10


@dataclass(frozen=True, slots=True)
class _Tile:
    image: UInt8Array
    lines: tuple[str, ...]


def write_sheets(folder: Path, report: CompareReport, images: ImageSet) -> list[Path]:
    """Write `contact-sheet.png`, `contact-sheet-2.png` and so on.

    Args:
        folder: exists.
        report: of the comparison.
        images: that it speaks of.

    Returns:
        The files; none where no image tells the two apart.
    """
    wanted = [
        (name, row)
        for name, row in zip(report.names, report.answers.differing, strict=True)
        if row.right is None or row.right in ("A", "B")
    ][: MOST_SHEETS * TILES]
    title = f"A: {report.a.path}   B: {report.b.path}"
    what = "only one of the two is right" if report.images.is_labelled else "the two give different answers"
    paths, below = list[Path](), f"{report.images.folder}/"
    with progress_bar("contact sheets", len(wanted)) as advance:
        for number, start in enumerate(range(0, len(wanted), TILES), start=1):
            part = wanted[start : start + TILES]
            tiles = [
                _Tile(fitted(images.samples.load(row.place), _BOX), (*_answers(row), name.removeprefix(below)))
                for name, row in part
            ]
            paths.append(folder / ("contact-sheet.png" if number == 1 else f"contact-sheet-{number}.png"))
            content = io.BytesIO()
            _draw(tiles, title, f"{what}: {start + 1} to {start + len(part)} of {len(wanted)}").save(content, "PNG")
            write_atomic(paths[-1], content.getvalue())
            advance(len(part), "")
    return paths


def _answers(row: Differing) -> Iterator[str]:
    for name, answer, probability in (("A", row.a, row.a_probability), ("B", row.b, row.b_probability)):
        share = "no answer" if probability is None else f"{answer} {100 * probability:.1f} %"
        yield f"{name}: {share}" + (", right" if row.right == name else "")
    yield "" if row.label is None else f"label: {row.label}"


def _draw(tiles: list[_Tile], title: str, note: str) -> Image.Image:
    rows = -(-len(tiles) // _COLUMNS)
    page = Image.new("RGB", (_WIDTH, _HEAD + rows * _HEIGHT), PAPER)
    draw = ImageDraw.Draw(page)
    font, small = lettering.font(_TEXT), lettering.font(_TEXT - 1)
    draw.text((_GAP, 8), shortened(title, font, _WIDTH - 2 * _GAP), INK, font)
    draw.text((_GAP, 8 + _LINE), shortened(note, small, _WIDTH - 2 * _GAP), PALE, small)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, _COLUMNS)
        left, top = _GAP + column * (_BOX + _GAP), _HEAD + _GAP + row * _HEIGHT
        height, width = tile.image.shape[:2]
        page.paste(Image.fromarray(tile.image), (left + (_BOX - width) // 2, top + (_BOX - height) // 2))
        for number, line in enumerate(tile.lines):
            is_name = number == len(tile.lines) - 1
            place = (left, top + _BOX + 2 + number * _LINE)
            draw.text(place, shortened(line, small, _BOX, keep_end=is_name), PALE if is_name else INK, small)
    return page
