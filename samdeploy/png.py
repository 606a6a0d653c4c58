"""Whether a PNG file is whole.

Pillow's decoder leaves the rows black for which a file has no data, and looks at neither IEND nor the checksums of the
pixels; libpng, which the C++ library reads with, refuses such files.  Here the chunks are looked at before a file is
decoded, and its last row afterwards.
The format is W3C's Portable Network Graphics Specification (third edition).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_PALETTE = 3
# Adam7: first column, first row, and the steps between columns and rows, of each pass.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
# Deflate makes at most 1,032 bytes of one.
_LARGEST_RATIO = 1032
_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class StoredPixels:
    """What a file holds of its pixels, still compressed."""

    parts: list[memoryview]
    needed: int  # bytes, once inflated
    is_interlaced: bool

    def check_rows(self, last_row: bytes) -> None:
        """Whether every row was there when the file was decoded.

        Pillow puts the rows one after the other into zeros, so a last row that holds anything else had all the others
        before it.  Zeros alone may be black or missing, and an interlaced file comes to its last row early: only
        there are the pixels inflated again, which takes about as long as decoding them.

        Args:
            last_row: the decoded picture's, in the mode that it was stored in.

        Raises:
            ValueError: how many bytes are missing.
        """
        if not self.is_interlaced and any(last_row):
            return
        found = _inflated(self.parts, self.needed)
        if found < self.needed:
            raise ValueError(f"PNG: {found:,} of {self.needed:,} bytes of pixels")


def check_png(content: bytes) -> StoredPixels:
    """Look at the chunks, at the checksums of those that matter, and whether the pixels can be as many as promised.

    Args:
        content: the whole file; begins with `SIGNATURE`.

    Raises:
        ValueError: what is missing or damaged.
    """
    view = memoryview(content)
    parts: list[memoryview] = []
    needed, is_indexed, is_interlaced, has_palette, has_end = 0, False, False, False, False
    for kind, data in _chunks(view):
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", data)
            is_indexed, is_interlaced = colour == _PALETTE, bool(interlace)
            needed = _bytes_of_pixels(width, height, depth * _CHANNELS.get(colour, 1), is_interlaced=is_interlaced)
        elif kind == b"PLTE":
            has_palette = True
        elif kind == b"IDAT":
            if is_indexed and not has_palette:
                raise ValueError("PNG: no palette")
            parts.append(data)
        elif kind == b"IEND":
            has_end = True
    if not has_end:
        raise ValueError("PNG: ends before its last chunk, IEND")
    most = sum(len(part) for part in parts) * _LARGEST_RATIO
    if most < needed:  # known without making them
        raise ValueError(f"PNG: at most {most:,} of {needed:,} bytes of pixels")
    return StoredPixels(parts, needed, is_interlaced)


def _chunks(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Type and data of each chunk to the end, or to IEND; critical ones with their checksums compared."""
    at = len(SIGNATURE)
    while at < len(view):
        if at + 12 > len(view):
            raise ValueError("PNG: ends in the middle of a chunk")
        length, kind = struct.unpack(">I4s", view[at : at + 8])
        end = at + 12 + length
        if end > len(view):
            raise ValueError(f"PNG: ends in the middle of chunk {kind.decode('latin-1')!r}")
        is_critical = not kind[0] & 0x20
        if is_critical and zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise ValueError(f"PNG: checksum of chunk {kind.decode('latin-1')!r} is wrong")
        yield kind, view[at + 8 : end - 4]
        if kind == b"IEND":
            return
        at = end


def _bytes_of_pixels(width: int, height: int, bits: int, *, is_interlaced: bool) -> int:
    """All rows with the byte before each that names its filter."""
    passes = _PASSES if is_interlaced else ((0, 0, 1, 1),)
    total = 0
    for column, row, right, down in passes:
        columns, rows = -((column - width) // right), -((row - height) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total


def _inflated(parts: list[memoryview], most: int) -> int:
    """How many bytes the parts hold together, counted up to `most`; they are not kept."""
    count, stream = 0, zlib.decompressobj()
    for part in parts:
        left: bytes | memoryview = part
        while left and count < most and not stream.eof:
            try:
                count += len(stream.decompress(left, _AT_ONCE))
            except zlib.error as error:
                raise ValueError(f"PNG: {error}") from None
            left = stream.unconsumed_tail
    return count
