"""From any size to the model's, in exact integers (docs/bundle.md, section 4, steps 3 and 4).

Pillow's antialiased bilinear filter: a triangle whose support grows with the scale, 22-bit fixed-point weights, one
rounding to uint8 after each pass.  Pillow changed the order of the passes in version 13, so each axis is resized in a
call of its own, **vertical first**: the same bytes with every release, and in C++ (tests/preprocess/test_resize.py has
a numpy twin).
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from samdeploy.arrays import UInt8Array
from samdeploy.errors import ImageError
from samdeploy.spec import Preprocessing

# An image of 1 x 1,000,000 pixels is a file of a few kilobytes, and between the two passes of the resize it would
# fill gigabytes.  No photograph comes near this many pixels there (it is half a GiB).
MOST_PIXELS_BETWEEN_PASSES = 1 << 27
# Longer sides are those of hostile files; the weights of one would fill gigabytes.
_LONGEST_SIDE = 1 << 20


def resized(image: Image.Image, preprocessing: Preprocessing) -> UInt8Array:
    """`image`, of mode RGB, as uint8 [H, W, 3].

    Raises:
        ImageError: it is so long and thin that its resize would fill the memory.
    """
    width, height = image.size
    short = preprocessing.resize_short
    if short is None:
        return np.array(resize_exact(image, preprocessing.height, preprocessing.width), dtype=np.uint8)
    if height <= width:
        scaled = resize_exact(image, short, short * width // height)
    else:
        scaled = resize_exact(image, short * height // width, short)
    top = (scaled.height - preprocessing.height) // 2
    left = (scaled.width - preprocessing.width) // 2
    # Not Image.crop, which obeys Image.MAX_IMAGE_PIXELS.
    pixels: UInt8Array = np.asarray(scaled)[top : top + preprocessing.height, left : left + preprocessing.width]
    return pixels.copy()


def resize_exact(image: Image.Image, height: int, width: int) -> Image.Image:
    """Vertically, then horizontally.

    Raises:
        ImageError: as `resized` does.
    """
    source_width, source_height = image.size
    is_long = max(source_width, source_height) > _LONGEST_SIDE
    if is_long or height * max(source_width, width) > MOST_PIXELS_BETWEEN_PASSES:
        raise ImageError(
            f"{source_width}x{source_height} pixels (width x height) are too long and thin to be brought to "
            f"{width}x{height}; crop the image first"
        )
    if height != source_height:
        image = image.resize((source_width, height), Image.Resampling.BILINEAR)
    if width != source_width:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image
