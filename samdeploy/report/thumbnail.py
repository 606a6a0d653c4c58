"""Images small enough to stand inside an HTML file."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image

from samdeploy.arrays import UInt8Array

# The longer side, in pixels: enough to recognise what it shows.
SIDE = 160
# Up to here every pixel counts, and PNG keeps each as it is; the page enlarges them in whole squares.
_TINY = 64


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """An image as a data URI.

    Attributes:
        uri: "data:image/...".
        tiny: whether its pixels are to be shown as squares.
    """

    uri: str
    tiny: bool


def thumbnail(image: UInt8Array) -> Thumbnail:
    """Of uint8 [h, w, 3] RGB; a large one is reduced to `SIDE`."""
    height, width = image.shape[:2]
    tiny, scale = max(height, width) <= _TINY, min(1.0, SIDE / max(height, width))
    small = Image.fromarray(image)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = small.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    content = io.BytesIO()
    if tiny:
        small.save(content, "PNG", optimize=True)
    else:
        small.save(content, "JPEG", quality=85)
    kind = "png" if tiny else "jpeg"
    return Thumbnail(f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode('ascii')}", tiny)
