"""What the contact sheets of `explain` and `compare` share: images fitted into boxes, texts into lines."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFont

from samdeploy.arrays import UInt8Array

INK, PALE, PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)


def shortened(text: str, font: ImageFont.FreeTypeFont, width: int, *, keep_end: bool = False) -> str:
    """`text` in one line of at most `width` pixels; what is left out becomes "…"."""
    text = " ".join("".join(c if c.isprintable() else "\ufffd" for c in text).split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"…{text}") > width:
        text = text[1:] if keep_end else text[:-1]
    return f"…{text}" if keep_end else f"{text}…"


def fitted(array: UInt8Array, side: int) -> UInt8Array:
    """uint8 [h, w, 3] RGB with its longer side at `side` pixels."""
    height, width = array.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.array(Image.fromarray(array).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0), dtype=np.uint8)
