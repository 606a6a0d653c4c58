"""Netpbm: P1 to P6, in numpy (netpbm.sourceforge.net/doc).

Pillow reads most depths sample by sample in Python, and rounds 16-bit colour where every other format keeps the high
byte.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samdeploy.arrays import UInt8Array
from samdeploy.images.refused import CheckSize, RefusedImage, check_whole

SIGNATURES = (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")

# Blanks and comments, which the end of what is looked at may cut short, then a number.
_NUMBER = re.compile(rb"(?:\s|#[^\r\n]*(?:[\r\n]|\Z))+([0-9]{0,10})")
_COMMENT = re.compile(rb"#[^\r\n]*")
# Texts take many times their length in memory once they are split into numbers.
_MOST_TEXT = 4 << 20
_MOST_HEADER = 1 << 16


def read_netpbm(content: bytes, check_size: CheckSize) -> tuple[Image.Image, int]:
    """The decoded first image, grey or RGB; its orientation is always 1.

    Args:
        content: the whole file; begins with one of `SIGNATURES`.
        check_size: called with width and height before memory is reserved.

    Raises:
        RefusedImage: more text, or a longer header, than is read, or too large to be held whole.
        ValueError: it is damaged or truncated; says why.
    """
    kind = content[1] - ord("0")
    is_text, is_bitmap, channels = kind <= 3, kind in (1, 4), 3 if kind in (3, 6) else 1
    if is_text and len(content) > _MOST_TEXT:
        raise RefusedImage(f"is a plain Netpbm of more than {_MOST_TEXT >> 20} MiB; convert it to the binary form")
    header, at = [], 2
    for _ in range(2 if is_bitmap else 3):
        match = _NUMBER.match(content, at, _MOST_HEADER)
        if match is not None and match.end() == _MOST_HEADER:
            raise RefusedImage(
                f"is a Netpbm whose header is longer than {_MOST_HEADER >> 10} KiB; save it again without comments"
            )
        if match is None or not match[1]:
            raise ValueError("Netpbm: damaged header")
        header.append(int(match[1]))
        at = match.end()
    width, height, largest = (*header, 1)[:3]
    if not width or not height or not 0 < largest < 1 << 16:
        raise ValueError(f"Netpbm: {width}x{height} pixels up to {largest}")
    check_size(width, height)
    check_whole(width * height, max(4 if channels == 3 else 1, (2 if largest > 255 else 1) * channels), "Netpbm")
    if is_text:
        samples: NDArray[Any] = _from_text(content[at:], width * height * channels, is_bitmap=is_bitmap)
    else:
        row = (width + 7) // 8 if is_bitmap else width * channels * (2 if largest > 255 else 1)
        data = memoryview(content)[at + 1 : at + 1 + row * height]
        if len(data) < row * height:
            raise ValueError(f"Netpbm: {len(data):,} of {row * height:,} bytes of pixels")
        if is_bitmap:
            bits = np.frombuffer(data, np.uint8).reshape(height, row)
            samples = np.unpackbits(bits, axis=1)[:, :width]
        else:
            samples = np.frombuffer(data, ">u2" if largest > 255 else np.uint8)
    pixels = _scaled(samples, largest, is_bitmap=is_bitmap)
    return Image.fromarray(pixels.reshape((height, width, 3) if channels == 3 else (height, width))), 1


def _from_text(text: bytes, count: int, *, is_bitmap: bool) -> NDArray[np.uint16]:
    text = _COMMENT.sub(b" ", text)
    if is_bitmap:  # its digits need no blanks between them
        tokens = [bytes([digit]) for digit in b"".join(text.split())[:count]]
    else:
        tokens = text.split(None, count)[:count]
    if len(tokens) < count or not all(token.isdigit() and len(token) <= 5 for token in tokens):
        raise ValueError(f"Netpbm: {len(tokens):,} of {count:,} numbers")
    return np.minimum(np.array(tokens).astype(np.int64), 65535).astype(np.uint16)


def _scaled(samples: NDArray[Any], largest: int, *, is_bitmap: bool) -> UInt8Array:
    """To 0..255; more than 8 bits are scaled to 16, of which the high byte is kept."""
    if is_bitmap:
        return np.where(samples, 0, 255).astype(np.uint8)  # 1 is black
    if largest == 255 and samples.dtype == np.uint8:
        return np.ascontiguousarray(samples)
    values = np.arange(1 << 16 if largest > 255 else 256, dtype=np.float64)
    most = 65535 if largest > 255 else 255
    table = np.minimum(np.rint(values / largest * most), most).astype(np.uint16)
    scaled: UInt8Array = (table >> 8 if largest > 255 else table).astype(np.uint8)
    pixels: UInt8Array = scaled[np.minimum(samples, len(scaled) - 1)]
    return pixels
