"""Images built by hand, byte for byte, that the tests of decoding and resizing share."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

UInt8Array = NDArray[np.uint8]


UPRIGHT = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 13  # no symmetry at all


def noise(height: int, width: int, seed: int = 0) -> UInt8Array:
    """The hardest image for a rounding: half of it noise, half of it 0 and 255."""
    generator = np.random.default_rng((seed, height, width))
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[: height // 2] = np.where(image[: height // 2] < 128, 0, 255)
    return image


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, colour: int, rows: list[bytes], *extra: bytes) -> bytes:
    """A PNG of unfiltered rows; `colour` 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGBA."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def grey(*values: int) -> list[list[list[int]]]:
    """One row of grey pixels as `decode(...).tolist()` gives it."""
    return [[[value] * 3 for value in values]]


def over_white(value: int, alpha: int) -> int:
    """Rounded to the nearest whole number, in exact integers; 255 is odd, so there are no ties."""
    return (2 * (value * alpha + 255 * (255 - alpha)) + 255) // (2 * 255)
