"""One way from a picture to the model's input, for training, evaluation and prediction alike.

Decode, then resize, both in exact integers.  The resize is Pillow's antialiased bilinear filter (a triangle
whose support grows with the scale, 22-bit fixed-point weights, one rounding to uint8 after each pass), with
the order of the passes fixed: **vertical first, then horizontal**.  Pillow itself changed its order in
version 13, so each axis is resized in a call of its own; that gives the same bytes with every Pillow release
and can be repeated in C++ (see tests/preprocess/test_resize.py for a numpy twin).
"""

from __future__ import annotations

import io
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from samdeploy.arrays import UInt8Array
from samdeploy.errors import ImageError
from samdeploy.png import check_png
from samdeploy.spec import MAX_PIXELS, Preprocessing

Source = str | Path | bytes | bytearray | memoryview | Image.Image | UInt8Array

# File name endings that samdeploy looks for in a folder; anything Pillow opens can be given by name.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")

_LONGEST_PATH = 4096  # bytes, on Linux

# What makes a picture upright, by its EXIF orientation; 1 and everything unknown is left as it is.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# A picture of 1 x 1,000,000 pixels is a file of a few kilobytes, and between the two passes of the resize it would
# fill gigabytes.  No photograph comes near this many pixels there (it is half a GiB).
_MAX_PIXELS_BETWEEN_PASSES = 1 << 27
# Longer sides are those of hostile files; the weights of one would fill gigabytes.
_LONGEST_SIDE = 1 << 20

# Stored like this, a transparent colour is lost: Pillow compares its full value with the pixels' 8-bit ones.
_TRANSPARENT_COLOUR_LOST = ("L;2", "L;4", "I;16B", "RGB;16B")


# Pillow's decoders report damage through all of these, depending on the format.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    RuntimeError,
    ArithmeticError,
    struct.error,
)


def decode(source: Source, *, max_pixels: int = MAX_PIXELS) -> UInt8Array:
    """The picture as uint8 [h, w, 3] RGB, upright.

    - EXIF orientation is applied.
    - Grey becomes three equal channels; a palette is looked up.
    - Transparency is laid over white, as most viewers show it: ``(c * a + 255 * (255 - a) + 127) // 255``.
    - 16 bits per channel keep their high byte (0..65535 maps to 0..255), colour and grey alike; Pillow rounds in
      colour PPM files.
    - CMYK and YCbCr are converted by Pillow, colour profiles are ignored; of an animation the first frame counts.

    Args:
        source: a path, the encoded bytes, a Pillow image, or an array uint8 [h, w, 3] RGB or [h, w] grey.
        max_pixels: a picture whose header says more is refused before memory is reserved for it.

    Raises:
        ImageError: the file is missing, empty, truncated, too large, not a picture, or holds floats or 32-bit integers.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    return _decoded(source, max_pixels, lambda picture: np.array(picture, dtype=np.uint8))


def resize(image: UInt8Array, preprocessing: Preprocessing) -> UInt8Array:
    """Bring uint8 [h, w, 3] RGB to uint8 [H, W, 3] as `preprocessing` says.

    Raises:
        ImageError: the picture is so long and thin that its resize would fill the memory.
    """
    return _resized(Image.fromarray(image), preprocessing)


def prepare(source: Source, preprocessing: Preprocessing, *, max_pixels: int = MAX_PIXELS) -> UInt8Array:
    """Decode and resize: the bytes that every backend is fed, uint8 [H, W, 3] RGB.

    Raises:
        ImageError: as `decode` and `resize` do.
    """

    def fit(picture: Image.Image) -> UInt8Array:
        try:
            return _resized(picture, preprocessing)
        except ImageError as error:
            raise ImageError(f"{_name(source)}: {error}") from None

    if isinstance(source, np.ndarray):
        return fit(Image.fromarray(_from_array(source, max_pixels)))
    # Not resize(decode(...)): a photograph need not become an array and a Pillow image again on its way.
    return _decoded(source, max_pixels, fit)


def image_files(folder: Path) -> list[Path]:
    """The picture files below `folder` (by `IMAGE_SUFFIXES`), sorted by path; hidden ones are passed over.

    A link that leads nowhere is among them: whoever reads it says so, and no picture is missed in silence.
    """
    return sorted(path for path in folder.rglob("*") if _is_image_file(path, folder))


def _is_image_file(path: Path, folder: Path) -> bool:
    if path.suffix.lower() not in IMAGE_SUFFIXES or any(part[0] == "." for part in path.relative_to(folder).parts):
        return False
    return path.is_file() or not path.exists()


def _decoded(
    source: str | Path | bytes | bytearray | memoryview | Image.Image,
    max_pixels: int,
    use: Callable[[Image.Image], UInt8Array],
) -> UInt8Array:
    """What `use` makes of the decoded picture, in mode RGB and upright; it must not keep it."""
    if isinstance(source, bytearray | memoryview):
        source = bytes(source)
    if not isinstance(source, str | Path | bytes | Image.Image):
        # What OpenCV's imread gives for a missing file is None.
        raise ImageError(
            f"image: {type(source).__name__} found; expected a path, bytes, a Pillow image or a uint8 array"
        )
    name = _name(source)
    try:
        if isinstance(source, Image.Image):
            return use(_to_rgb(source, name, max_pixels))
        with _opened(source) as opened:
            _check_pixels(opened.width, opened.height, name, max_pixels)
            if opened.format != "PNG":
                return use(_to_rgb(opened, name, max_pixels))
            stored = check_png(source if isinstance(source, bytes) else Path(source).read_bytes())
            made = use(_to_rgb(opened, name, max_pixels))
            stored.check_rows(opened.crop((0, opened.height - 1, *opened.size)).tobytes())
            return made
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: is a folder, a picture was expected") from None
    except PermissionError:
        raise ImageError(f"{name}: may not be read (permission denied)") from None
    except UnidentifiedImageError:
        if not (len(source) if isinstance(source, bytes) else Path(str(source)).stat().st_size):
            raise ImageError(f"{name}: the file is empty; expected a picture") from None
        hint = ""
        if isinstance(source, bytes) and len(source) < _LONGEST_PATH and b"\0" not in source and os.path.exists(source):  # noqa: PTH110
            hint = "; bytes are taken as the content of a file, and these are the name of one: os.fsdecode() it first"
        raise ImageError(f"{name}: not a picture, or of a kind that Pillow cannot read{hint}") from None
    except MemoryError:
        raise ImageError(f"{name}: the memory is too full to decode and resize it; scale it down first") from None
    except Image.DecompressionBombError as error:  # of a frame or tile within, of which the header said nothing
        raise ImageError(f"{name}: too many pixels, scale it down first ({error})") from None
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:  # the file system's own, such as a loop of links
            raise ImageError(f"{name}: cannot be read ({error.strerror})") from None
        raise ImageError(f"{name}: damaged or truncated ({error}); expected a complete picture") from None


def _opened(source: str | Path | bytes) -> Image.Image:
    """The picture behind its header; nothing is decoded yet."""
    if not isinstance(source, bytes):
        if not str(source):
            raise ImageError("'': is no path, a picture was expected")
        if "\0" in str(source):
            raise ImageError(f"{str(source)!r}: no path has a zero byte in it, a picture was expected")
        try:
            os.fsencode(source)
        except UnicodeEncodeError:  # as ASCII: what cannot be a file's name cannot be printed either
            raise ImageError(f"{str(source)!a}: no file can have this name, a picture was expected") from None
        mode = Path(source).stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a pipe that nobody fills would wait for ever
            raise ImageError(f"{source}: is no plain file, a picture was expected")
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        # Above Pillow's limit, or above half of it where warnings are errors; ours alone counts.
        return _opened_by_format(source if isinstance(source, bytes) else Path(source).read_bytes())


def _opened_by_format(content: bytes) -> Image.Image:
    """What `Image.open` does, without its look at the number of pixels."""
    Image.init()
    for factory, accepts in (Image.OPEN[kind] for kind in Image.ID):
        try:
            if accepts is None or accepts(content[:16]) is True:
                return factory(io.BytesIO(content), "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
    raise UnidentifiedImageError("no format of Pillow's takes it")


def _resized(picture: Image.Image, preprocessing: Preprocessing) -> UInt8Array:
    width, height = picture.size
    short = preprocessing.resize_short
    if short is None:
        return np.array(_resize_exact(picture, preprocessing.height, preprocessing.width), dtype=np.uint8)
    if height <= width:
        scaled = _resize_exact(picture, short, short * width // height)
    else:
        scaled = _resize_exact(picture, short * height // width, short)
    top = (scaled.height - preprocessing.height) // 2
    left = (scaled.width - preprocessing.width) // 2
    cut = scaled.crop((left, top, left + preprocessing.width, top + preprocessing.height))
    return np.array(cut, dtype=np.uint8)


def _resize_exact(picture: Image.Image, height: int, width: int) -> Image.Image:
    source_width, source_height = picture.size
    is_long = max(source_width, source_height) > _LONGEST_SIDE
    if is_long or height * max(source_width, width) > _MAX_PIXELS_BETWEEN_PASSES:
        raise ImageError(
            f"{source_width}x{source_height} pixels (width x height) are too long and thin to be brought to "
            f"{width}x{height}; cut the picture first"
        )
    if height != source_height:
        picture = picture.resize((source_width, height), Image.Resampling.BILINEAR)
    if width != source_width:
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return picture


def _name(source: object) -> str:
    return str(source) if isinstance(source, str | Path) else "image"


def _check_pixels(width: int, height: int, name: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: too many pixels, scale it down first ({width}x{height} are {width * height:,}, at most "
            f"{max_pixels:,} are decoded; Classifier.open(max_pixels=) sets it)"
        )


def _from_array(array: UInt8Array, max_pixels: int) -> UInt8Array:
    if array.dtype != np.uint8:
        raise ImageError(f"image array: dtype {array.dtype} found, uint8 expected (0..255, not 0..1)")
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ImageError(f"image array: shape {list(array.shape)} found, [height, width, 3] RGB expected")
    if 0 in array.shape:
        raise ImageError(f"image array: shape {list(array.shape)} found, at least one pixel expected")
    _check_pixels(array.shape[1], array.shape[0], "image array", max_pixels)
    return np.ascontiguousarray(array)


def _to_rgb(picture: Image.Image, name: str, max_pixels: int) -> Image.Image:
    if 0 in picture.size:
        raise ImageError(f"{name}: {picture.width}x{picture.height} pixels (width x height), at least one expected")
    _check_pixels(picture.width, picture.height, name, max_pixels)
    if picture.format == "EPS":  # Pillow would run Ghostscript: a picture must not be a program
        raise ImageError(f"{name}: is EPS, a program that draws; expected pixels, convert it first")
    # Netpbm's 16-bit grey comes as 32-bit integers, but in 0..65535.
    is_netpbm = picture.format == "PPM"
    if "transparency" in picture.info and _raw_mode(picture) in _TRANSPARENT_COLOUR_LOST:
        raise ImageError(
            f"{name}: has a transparent colour beside 2, 4 or 16 bits per channel; convert it to RGBA first"
        )
    picture.load()
    picture = _upright(picture)
    if picture.mode in ("I;16", "I;16L", "I;16B", "I;16N") or (picture.mode == "I" and is_netpbm):
        grey = (np.asarray(picture) >> 8).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if picture.mode in ("I", "F"):
        # convert("RGB") would clip everything above 255 to white.
        kind = "32-bit integers" if picture.mode == "I" else "floating-point numbers"
        raise ImageError(f"{name}: holds {kind}; expected 8 or 16 bits per channel, convert it first")
    if picture.mode == "La":
        picture = picture.convert("LA")  # the only way out of La that Pillow knows
    if "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA", "RGBa"):
        return Image.fromarray(_over_white(np.array(picture.convert("RGBA"), dtype=np.uint8)))
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _raw_mode(picture: Image.Image) -> object:
    """How the file stores its pixels, in Pillow's words; None for a picture that is no file, or is loaded already."""
    tiles = getattr(picture, "tile", None)
    return tiles[0][3] if tiles else None


def _upright(picture: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose: it writes the EXIF block anew, and fails on odd ones around a sound picture.
    try:
        turn = _UPRIGHT.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except _DAMAGE:
        return picture  # the pixels are there, and no viewer refuses them for their EXIF block
    return picture if turn is None else picture.transpose(turn)


def _over_white(rgba: UInt8Array) -> UInt8Array:
    colour = rgba[:, :, :3].astype(np.uint32)
    alpha = rgba[:, :, 3:].astype(np.uint32)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
