"""A contact sheet of training images: as prepared, and as the network is given them, as one PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from samdeploy.arrays import UInt8Array
from samdeploy.bundle.spec import Preprocessing
from samdeploy.images.font import font

# Images, and times that each of them is augmented.
ROWS, COLUMNS = 10, 8
# Side of an image on the sheet: small ones are enlarged so that their pixels can be seen, large ones made smaller.
_SIDE = 96
_GAP, _LABEL = 6, 17
_PAPER, _INK = "white", "black"


def contact_sheet(
    names: Sequence[str],
    prepared: UInt8Array,
    augmented: Callable[[], torch.Tensor],
    preprocessing: Preprocessing,
    *,
    is_random: bool,
) -> bytes:
    """A row per image: first as prepared, then `COLUMNS` times augmented.

    Args:
        names: N texts, the images' classes.
        prepared: uint8 [N, H, W, 3].
        augmented: gives all N images anew, float32 [N, 3, h, w], normalised, with every call.
        preprocessing: whose normalisation is undone.
        is_random: whether those calls differ.
    """
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    columns = [prepared]
    for _ in range(COLUMNS):
        pixels = (augmented() * std + mean).clamp(0, 1).mul(255).round().to(torch.uint8)
        columns.append(pixels.permute(0, 2, 3, 1).numpy())
    step_x, step_y = _SIDE + _GAP, _SIDE + _GAP + _LABEL
    size = (len(columns) * step_x + 3 * _GAP, len(names) * step_y + _GAP + _LABEL)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    letters = font(12)
    draw.text((_GAP, 2), "as prepared", _INK, letters)
    same = "" if is_random else ": the same every time, since the recipe augments nothing"
    draw.text((step_x + 3 * _GAP, 2), f"as the network is given it{same}", _INK, letters)
    for row, name in enumerate(names):
        y = _LABEL + _GAP + row * step_y
        for column, images in enumerate(columns):
            x = _GAP + column * step_x + (2 * _GAP if column else 0)  # a wider gap beside the first column
            sheet.paste(_fitted(images[row]), (x, y))
        draw.text((_GAP, y + _SIDE), name, _INK, letters)
    draw.line([(step_x + _GAP, _LABEL), (step_x + _GAP, size[1] - _GAP)], _INK)
    content = io.BytesIO()
    sheet.save(content, "PNG")
    return content.getvalue()


def _fitted(pixels: UInt8Array) -> Image.Image:
    """On a square of the sheet, in its own proportions."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    scale = _SIDE / max(image.size)
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), method)
    square = Image.new("RGB", (_SIDE, _SIDE), _PAPER)
    square.paste(image, ((_SIDE - image.width) // 2, (_SIDE - image.height) // 2))
    return square
