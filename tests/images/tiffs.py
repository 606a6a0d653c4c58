"""TIFF files written byte by byte, so that each stored sample is known."""

from __future__ import annotations

import struct
from collections.abc import Sequence

_LONG = frozenset({256, 257, 273, 278, 279, 322, 323, 324, 325})


def tiff(
    planes: Sequence[bytes],
    size: tuple[int, int],
    bits: Sequence[int],
    photometric: int,
    *,
    order: str = "<",
    big: bool = False,
    **tags: int | Sequence[int],
) -> bytes:
    """One uncompressed page; `planes` are its strips.

    Args:
        size: width and height.
        bits: of each sample.
        tags: further ones, or others than by default, as t262=0.
    """
    data = b"".join(planes)
    head = 16 if big else 8
    offsets = [head + sum(map(len, planes[:index])) for index in range(len(planes))]
    values: dict[int, Sequence[int]] = {
        256: [size[0]], 257: [size[1]], 258: bits, 259: [1], 262: [photometric], 273: offsets, 277: [len(bits)],
        278: [size[1]], 279: [len(plane) for plane in planes],
    }  # fmt: skip
    values |= {int(name[1:]): [value] if isinstance(value, int) else value for name, value in tags.items()}
    offset, entry = ("Q", 20) if big else ("I", 12)
    start = head + len(data)
    directory = struct.pack(order + ("Q" if big else "H"), len(values))
    after, extra = start + len(directory) + entry * len(values) + struct.calcsize(order + offset), b""
    for tag, found in sorted(values.items()):
        kind, code = (4, "I") if tag in _LONG else (3, "H")
        packed = struct.pack(f"{order}{len(found)}{code}", *found)
        directory += struct.pack(f"{order}HH{offset}", tag, kind, len(found))
        room = struct.calcsize(order + offset)
        if len(packed) > room:
            directory += struct.pack(order + offset, after + len(extra))
            extra += packed
        else:
            directory += packed.ljust(room, b"\0")
    mark = b"II" if order == "<" else b"MM"
    first = struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, start) if big else (42, start)))
    return mark + first + data + directory + bytes(struct.calcsize(order + offset)) + extra
