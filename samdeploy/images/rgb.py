"""From what Pillow decoded to upright grey or RGB."""

from __future__ import annotations

import numpy as np
from PIL import ExifTags, Image

from samdeploy.arrays import UInt8Array
from samdeploy.images.refused import RefusedImage

# What makes an image upright, by its EXIF orientation; 1 and everything unknown is left as it is.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation_of(image: Image.Image) -> int:
    """What Pillow knows of the orientation of an image that is no file any more."""
    # Not ImageOps.exif_transpose: it writes the EXIF block anew, and fails on odd ones around sound pixels.
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # the pixels are there, and no viewer refuses them for their EXIF block
        return 1
    return found if isinstance(found, int) else 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Upright, in mode L (whose three channels are equal, and take a quarter of the memory) or RGB; alpha is laid over
    white.

    Args:
        image: decoded, of any mode but those of floats and 32-bit integers.
        orientation: of EXIF.

    Raises:
        RefusedImage: of those modes.
    """
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        # convert("RGB") would clip everything above 255 to white.
        kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise RefusedImage(f"holds {kind}; expected 8 or 16 bits per channel, convert it first")
    turn = _UPRIGHT.get(orientation)
    if turn is not None:
        image = image.transpose(turn)
    if image.mode == "La":
        image = image.convert("LA")  # the only way out of La that Pillow knows
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa"):
        return _over_white(image if image.mode == "RGBA" else image.convert("RGBA"))
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    found = Image.new("RGB", image.size)
    # In bands: arrays of the whole image would take many times its memory.
    rows = max(1, (1 << 20) // image.width)
    for top in range(0, image.height, rows):
        band = (0, top, image.width, min(top + rows, image.height))
        # Not Image.crop, which obeys Image.MAX_IMAGE_PIXELS.
        part = np.asarray(image.resize((image.width, band[3] - top), Image.Resampling.NEAREST, band))
        alpha = part[:, :, 3:].astype(np.uint32)
        over: UInt8Array = ((part[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
        found.paste(Image.fromarray(over), (0, top))
    return found
