"""From any size to the model's, in exact integers (docs/bundle.md, section 4, steps 3 and 4).

Pillow's antialiased bilinear filter: a triangle whose support grows with the scale, 22-bit fixed-point weights, one
rounding to uint8 after each pass.  Pillow changed the order of the passes in version 13, so each axis is resized in a
call of its own, **vertical first**: the same bytes with every release, and in C++ (tests/images/test_resize.py has
a numpy twin).
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from samdeploy.arrays import UInt8Array
from samdeploy.bundle.spec import Preprocessing
from samdeploy.errors import ImageError

# An image of 1 x 1,000,000 pixels is a file of a few kilobytes, and between the two passes of the resize it would
# fill gigabytes.  No photograph comes near this many pixels there (it is half a GiB).
MOST_PIXELS_BETWEEN_PASSES = 1 << 27
# Longer sides are those of hostile files; the weights of one would fill gigabytes.
_LONGEST_SIDE = 1 << 20


class TooLong(ImageError):
    """An image whose resize would fill the memory; its name is not in the text yet."""


def resized(image: Image.Image, preprocessing: Preprocessing) -> UInt8Array:
    """`image`, of mode L or RGB, as uint8 [H, W, 3].

    Raises:
        TooLong: it is so long and thin that its resize would fill the memory.
    """
    width, height = image.size
    short = preprocessing.resize_short
    if short is None:
        return as_rgb(resize_exact(image, preprocessing.height, preprocessing.width))
    if height <= width:
        scaled = resize_exact(image, short, short * width // height)
    else:
        scaled = resize_exact(image, short * height // width, short)
    top = (scaled.height - preprocessing.height) // 2
    left = (scaled.width - preprocessing.width) // 2
    # Not Image.crop, which obeys Image.MAX_IMAGE_PIXELS.
    return as_rgb(scaled)[top : top + preprocessing.height, left : left + preprocessing.width].copy()


def as_rgb(image: Image.Image) -> UInt8Array:
    """`image`, of mode L or RGB, as uint8 [h, w, 3]."""
    return np.array(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)


def check_sides(width: int, height: int, preprocessing: Preprocessing) -> None:
    """Refuse an image that is too long however it is turned; before it is decoded.

    Raises:
        TooLong: it is.
    """
    if max(width, height) > _LONGEST_SIDE:
        raise _too_long(width, height, preprocessing.height, preprocessing.width)


def resize_exact(image: Image.Image, height: int, width: int) -> Image.Image:
    """Vertically, then horizontally.

    Raises:
        TooLong: as `resized` does.
    """
    source_width, source_height = image.size
    is_long = max(source_width, source_height) > _LONGEST_SIDE
    if is_long or height * max(source_width, width) > MOST_PIXELS_BETWEEN_PASSES:
        raise _too_long(source_width, source_height, height, width)
    if height != source_height:
        image = image.resize((source_width, height), Image.Resampling.BILINEAR)
    if width != source_width:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image


def _too_long(source_width: int, source_height: int, height: int, width: int) -> TooLong:
    return TooLong(
        f"{source_width}x{source_height} pixels (width x height) are too long and thin to be brought to "
        f"{width}x{height}; crop the image first"
    )
