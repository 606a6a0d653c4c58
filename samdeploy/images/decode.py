"""One way from an image to the model's input, for training, evaluation and prediction alike.

Decode (`samdeploy.images`), then resize, both in exact integers; docs/bundle.md, section 4, says how.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from samdeploy.arrays import UInt8Array
from samdeploy.bundle.path_kind import path_kind
from samdeploy.bundle.spec import MAX_BYTES, MAX_PIXELS, Preprocessing
from samdeploy.errors import ImageError
from samdeploy.images.formats import Reader, open_webp, read_webp
from samdeploy.images.jpeg import follow_markers, read_jpeg
from samdeploy.images.png import check_png, read_png
from samdeploy.images.refused import CheckSize, RefusedImage
from samdeploy.images.resize import TooLong, as_rgb, check_sides, resized
from samdeploy.images.rgb import orientation_of, upright
from samdeploy.images.source import encoded, name_of

Source = str | Path | bytes | bytearray | memoryview | Image.Image | UInt8Array

# What looks at all parts of a file without decoding it.
_FOLLOWED: Mapping[Reader, Callable[[bytes, CheckSize], object]] = {
    read_jpeg: follow_markers,
    read_png: check_png,
    read_webp: open_webp,
}
# Decoders report damage through all of these, depending on the format; a warning where they are errors.
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, RuntimeError, ArithmeticError),
    *(struct.error, Warning),
)
# Not caught by a context manager made of a generator: from Python 3.12 on its frames and the error hold one another,
# and the image, until Python looks for cycles.
_UNREADABLE = (RefusedImage, MemoryError, Image.DecompressionBombError, *_DAMAGE)


def decode(source: Source, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> UInt8Array:
    """The image as uint8 [h, w, 3] RGB, upright.

    - EXIF orientation is applied.
    - Grey becomes three equal channels; a palette is looked up.
    - Transparency is laid over white, as most viewers show it: ``(c * a + 255 * (255 - a) + 127) // 255``.
    - 16 bits per channel keep their high byte (0..65535 maps to 0..255), colour and grey alike.
    - CMYK and YCbCr are converted, colour profiles are ignored; of an animation the first frame counts.

    Args:
        source: a path, the encoded bytes, a Pillow image, or an array uint8 [h, w, 3] RGB or [h, w] grey.  A Pillow
            image whose file is not decoded yet is read like the file.
        max_pixels: an image whose header says more is refused before memory is reserved for it.
        max_bytes: a longer file is refused before it is read.

    Raises:
        ImageError: the file is missing, empty, truncated, too large, no image, or of a kind that is not read right,
            such as floats or 32-bit integers.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    return _decoded(source, max_pixels, max_bytes, as_rgb)


def resize(image: UInt8Array, preprocessing: Preprocessing) -> UInt8Array:
    """Bring uint8 [h, w, 3] RGB to uint8 [H, W, 3] as `preprocessing` says.

    Raises:
        ImageError: the image is so long and thin that its resize would fill the memory.
    """
    return resized(Image.fromarray(image), preprocessing)


def prepare(
    source: Source, preprocessing: Preprocessing, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> UInt8Array:
    """Decode and resize: the bytes that every backend is fed, uint8 [H, W, 3] RGB.

    Raises:
        ImageError: as `decode` and `resize` do.
    """
    return prepare_sized(source, preprocessing, max_pixels=max_pixels, max_bytes=max_bytes)[0]


def prepare_sized(
    source: Source, preprocessing: Preprocessing, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> tuple[UInt8Array, tuple[int, int]]:
    """As `prepare`, and (width, height) of the image before, upright, in pixels."""
    size = (0, 0)

    def use(image: Image.Image) -> UInt8Array:
        nonlocal size
        size = image.size
        return resized(image, preprocessing)

    try:
        if isinstance(source, np.ndarray):
            return use(Image.fromarray(_from_array(source, max_pixels))), size
        # Not resize(decode(...)): a photograph need not become an array and a Pillow image again on its way.
        return _decoded(source, max_pixels, max_bytes, use, preprocessing), size
    except TooLong as error:
        raise ImageError(f"{name_of(source)}: {error}") from None


def check_image(source: str | Path | bytes, preprocessing: Preprocessing, name: str = "") -> None:
    """Whether a file, or its content, can be prepared, as far as that is seen without decoding: format, sides, its end.

    Of JPEG, PNG and WebP all parts are followed; damage within compressed pixels is not seen.

    Args:
        name: what to call it; "": its path.

    Raises:
        ImageError: as `prepare` does.
    """

    name = name or name_of(source)

    def check_size(width: int, height: int) -> None:
        _check_pixels(width, height, name, MAX_PIXELS)
        check_sides(width, height, preprocessing)

    def stop(width: int, height: int) -> None:
        check_size(width, height)
        raise _Seen

    try:
        reader, content = encoded(source, MAX_BYTES, name)
        if (follow := _FOLLOWED.get(reader)) is not None:
            follow(content, check_size)
        else:
            with suppress(_Seen):
                reader(content, stop)
    except TooLong as error:
        raise ImageError(f"{name}: {error}") from None
    except _UNREADABLE as error:
        raise ImageError(f"{name}: {_reason(name, error)}") from None


class _Seen(Exception):
    """The size of an image is known, and no more is needed."""


def _decoded(
    source: str | Path | bytes | bytearray | memoryview | Image.Image,
    max_pixels: int,
    max_bytes: int,
    use: Callable[[Image.Image], UInt8Array],
    preprocessing: Preprocessing | None = None,
) -> UInt8Array:
    """What `use` makes of the decoded image, in mode L or RGB and upright; it must not keep it."""
    if isinstance(source, bytearray | memoryview):
        source = bytes(source)
    if not isinstance(source, str | Path | bytes | Image.Image):
        # What OpenCV's imread gives for a missing file is None.
        raise ImageError(
            f"image: {type(source).__name__} found; expected a path, bytes, a Pillow image or a uint8 array"
        )
    name = name_of(source)

    def check_size(width: int, height: int) -> None:
        _check_pixels(width, height, name, max_pixels)
        if preprocessing is not None:
            check_sides(width, height, preprocessing)

    try:
        if isinstance(source, Image.Image):
            content = _undecoded(source)
            if content is None:
                return use(upright(_loaded(source, check_size), orientation_of(source)))
            source = content
        reader, content = encoded(source, max_bytes)
        return use(upright(*reader(content, check_size)))
    except _UNREADABLE as error:
        raise ImageError(f"{name}: {_reason(name, error)}") from None


def _reason(name: str, error: BaseException) -> str:
    """Why the image cannot be read."""
    if isinstance(error, FileNotFoundError):
        return _not_a_file(name)
    if isinstance(error, PermissionError):
        return "may not be read (permission denied)"
    if isinstance(error, RefusedImage):
        return str(error)
    if isinstance(error, MemoryError):
        return "the memory is too full to decode and resize it; scale it down first"
    if isinstance(error, Image.DecompressionBombError):  # of a Pillow image that the caller opened
        return f"too many pixels, scale it down first ({error})"
    if isinstance(error, OSError) and error.errno is not None:  # the file system's own, such as a loop of links
        return f"cannot be read ({error.strerror})"
    return f"damaged or truncated ({error}); expected a complete image"


def _not_a_file(name: str) -> str:
    """Why nothing is at this path."""
    kind = path_kind(name)
    if kind == "URL":
        return "addresses are not fetched; download the image and name the file"
    return "standard input is not read; name a file" if kind == "standard input" else "no such file"


def _undecoded(image: Image.Image) -> bytes | None:
    """The file behind an image of which nothing is decoded yet and the first frame is shown; else None."""
    if not isinstance(image, ImageFile.ImageFile) or not image.tile or image.tell() != 0:
        return None
    file = getattr(image, "fp", None)
    if file is None or getattr(image, "_im", None) is not None:
        return None
    before = file.tell()
    try:
        file.seek(0)
        return bytes(file.read())
    finally:
        file.seek(before)


def _loaded(image: Image.Image, check_size: CheckSize) -> Image.Image:
    if 0 in image.size:
        raise RefusedImage(f"{image.width}x{image.height} pixels (width x height), at least one expected")
    check_size(*image.size)
    image.load()
    return image


def _check_pixels(width: int, height: int, name: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: too many pixels, scale it down first ({width}x{height} are {width * height:,}, at most "
            f"{max_pixels:,} are decoded; only Classifier.open(max_pixels=) and serve --max-pixels change that)"
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
