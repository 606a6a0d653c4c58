"""The one thing that metadata says about pixels: which way is up.

EXIF is a TIFF directory (EXIF 2.32, 4.6); cpp/src/orientation.cpp reads the same blocks in the same way.
"""

from __future__ import annotations

import re
import struct

# A longer block, of EXIF or XMP, is as if it were not there.
MOST_METADATA = 1 << 20

_ORIENTATION = 274
# Bytes of one value, by TIFF type.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_HEADERS = {b"II*\0": "<", b"II\0*": "<", b"MM\0*": ">", b"MM*\0": ">"}
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def orientation(exif: bytes | bytearray | None, xmp: bytes | bytearray | None) -> int:
    """1 to 8: EXIF's where it has one, else XMP's, else 1.

    Args:
        exif: with or without "Exif\\0\\0" before the TIFF header.
        xmp: the packet.
    """
    found = _from_exif(_short(exif))
    if found is None:
        match = _XMP.search(_short(xmp))
        found = int(match[1]) if match else 1
    return found if 1 <= found <= 8 else 1


def _short(block: bytes | bytearray | None) -> bytes:
    content = b"" if block is None else bytes(block)
    return content if len(content) <= MOST_METADATA else b""


def _from_exif(block: bytes) -> int | None:
    for _ in range(2):
        block = block.removeprefix(b"Exif\0\0")
    if not block:
        return None
    order = _HEADERS.get(block[:4])
    if order is None or len(block) < 8:
        return 1
    return _from_directory(block, order)


def _from_directory(block: bytes, order: str) -> int | None:
    (start,) = struct.unpack_from(f"{order}I", block, 4)
    if start + 2 > len(block):
        return None
    total = 0
    (count,) = struct.unpack_from(f"{order}H", block, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        if at + 12 > len(block):
            return None
        tag, kind, values = struct.unpack_from(f"{order}HHI", block, at)
        size = _SIZES.get(kind, 0) * values
        value = at + 8
        if size > 4:
            total += size
            if total > len(block):
                continue
            (value,) = struct.unpack_from(f"{order}I", block, value)
            if value + size > len(block):
                return None
        if tag == _ORIENTATION and size:
            return _whole(block, value, kind, order)
    return None


def _whole(block: bytes, at: int, kind: int, order: str) -> int:
    """The first of its values, where they are whole numbers."""
    code = {3: "H", 8: "h", 4: "I", 9: "i", 13: "I", 6: "b"}.get(kind)
    return int(struct.unpack_from(order + code, block, at)[0]) if code else 1
