"""From any size to the model's, in exact integers (docs/bundle.md, section 4, steps 3 and 4).

Pillow's antialiased bilinear and bicubic filters: a kernel whose support grows with the scale, 22-bit fixed-point
weights, one rounding to uint8 after each pass.  Pillow goes horizontally first, and since version 13 takes the order
that is less work, so each axis is resized in a call of its own, **vertical first**: the same bytes with every release,
and in C++.
tests/images/test_resize.py has a numpy twin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from samdeploy.arrays import UInt8Array
from samdeploy.bundle.spec import RESIZES, Preprocessing, Resize
from samdeploy.errors import ImageError

# An image of 1 x 1,000,000 pixels is a file of a few kilobytes, and between the two passes of the resize it would
# fill gigabytes.  No photograph comes near this many pixels there (it is half a GiB).
MOST_PIXELS_BETWEEN_PASSES = 1 << 27
# Longer sides are those of hostile files; the weights of one would fill gigabytes.
_LONGEST_SIDE = 1 << 20

_PILLOWS: dict[Resize, Image.Resampling] = {
    RESIZES["bilinear"]: Image.Resampling.BILINEAR,
    RESIZES["bicubic"]: Image.Resampling.BICUBIC,
}


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the model's input lies on the scaled image, in pixels.

    Attributes:
        height, width: of the scaled image.
        top, left: of the input.
    """

    height: int
    width: int
    top: int = 0
    left: int = 0


class TooLong(ImageError):
    """An image whose resize would fill the memory; its name is not in the text yet."""


def placement(preprocessing: Preprocessing, height: int, width: int) -> Placement:
    """How an image of `height` x `width` pixels is scaled, and what of it is kept."""
    short = preprocessing.resize_short
    if short is None:
        return Placement(preprocessing.height, preprocessing.width)
    # As torchvision's Resize, which rounds the longer side down, whatever `crop` says.
    scaled_height, scaled_width = (
        (short, short * width // height) if height <= width else (short * height // width, short)
    )
    above_and_below, beside = scaled_height - preprocessing.height, scaled_width - preprocessing.width
    if preprocessing.crop == "floor":
        return Placement(scaled_height, scaled_width, above_and_below // 2, beside // 2)
    # As torchvision's CenterCrop: Python's round takes the even neighbour of a half.
    return Placement(scaled_height, scaled_width, round(above_and_below / 2), round(beside / 2))


def resized(image: Image.Image, preprocessing: Preprocessing) -> UInt8Array:
    """`image`, of mode L or RGB, as uint8 [H, W, 3].

    Raises:
        TooLong: it is so long and thin that its resize would fill the memory.
    """
    place = placement(preprocessing, image.height, image.width)
    found = as_rgb(resize_exact(image, place.height, place.width, preprocessing.resize))
    if preprocessing.fit == "squeeze":
        return found
    # Not Image.crop, which obeys Image.MAX_IMAGE_PIXELS.
    bottom, right = place.top + preprocessing.height, place.left + preprocessing.width
    return found[place.top : bottom, place.left : right].copy()


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


def resize_exact(image: Image.Image, height: int, width: int, resize: Resize) -> Image.Image:
    """Vertically, then horizontally.

    Raises:
        TooLong: as `resized` does.
    """
    source_width, source_height = image.size
    is_long = max(source_width, source_height) > _LONGEST_SIDE
    if is_long or height * max(source_width, width) > MOST_PIXELS_BETWEEN_PASSES:
        raise _too_long(source_width, source_height, height, width)
    if height != source_height:
        image = image.resize((source_width, height), _PILLOWS[resize])
    if width != source_width:
        image = image.resize((width, height), _PILLOWS[resize])
    return image


def _too_long(source_width: int, source_height: int, height: int, width: int) -> TooLong:
    return TooLong(
        f"{source_width}x{source_height} pixels (width x height) are too long and thin to be brought to "
        f"{width}x{height}; crop the image first"
    )
