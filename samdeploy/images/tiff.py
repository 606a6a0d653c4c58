"""TIFF: the first page, where its kind of pixels is one that Pillow is known to read right (TIFF 6.0, Adobe 1992).

Pillow's mode hides what a sample means: 16-bit samples with WhiteIsZero come out as a negative, 12-bit ones 16 times
too dark, planes as if they were interleaved.  So the page's tags are read here, compared with the kinds below, and
written anew for Pillow with nothing but what the pixels need.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image

from samdeploy.images.jpeg import follow_markers
from samdeploy.images.refused import CheckSize, RefusedImage, check_whole
from samdeploy.images.strict import StrictTiff

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
_FILL_ORDER, _STRIPS, _ORIENTATION, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANES = 266, 273, 274, 277, 278, 279, 284
_PREDICTOR, _COLOURS, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 317, 320, 322, 323, 324, 325
_INKS, _EXTRA, _FORMAT, _TABLES, _SUBSAMPLING, _DNG = 332, 338, 339, 347, 530, 50706

# What Pillow is handed, where the file has it.
_KEPT = (
    _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIPS, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANES,
    292, 293, _PREDICTOR, _COLOURS, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _EXTRA, _TABLES, _SUBSAMPLING,
)  # fmt: skip
_LOOKED_AT = frozenset({*_KEPT, _SUBFILE, _OLD_SUBFILE, _ORIENTATION, _INKS, _FORMAT, _DNG})

_CODES = {1: "B", 3: "H", 4: "I", 7: "B", 16: "Q"}
_MOST_VALUES = 1 << 16
# Bytes of all tiles together, beyond four times the image: so much may stick out over narrow images.
_MOST_BEYOND = 64 << 20

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_PHOTOMETRICS = {0: "WhiteIsZero", 1: "BlackIsZero", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr",
                 8: "CIELab", 9: "ICCLab", 10: "ITULab", 32803: "a sensor's raw colours", 32844: "LogL",
                 32845: "LogLuv", 34892: "LinearRaw"}  # fmt: skip
_FORMATS = {1: "unsigned", 2: "signed", 3: "floating-point", 4: "untyped", 5: "complex", 6: "complex"}
_PLAIN, _JPEG = 1, 7
_PACKED = frozenset({1, 5, 8, 32773, 32946})  # none, LZW, Deflate, PackBits, Deflate
_FAX = frozenset({2, 3, 4})

# (photometric, bits of each sample, extra samples), all of them unsigned and interleaved.
# Extra samples: 0 unspecified and passed over, 1 associated alpha, 2 unassociated alpha.
_READ = frozenset(
    {
        *((grey, (bits,), ()) for grey in (_WHITE_IS_ZERO, _BLACK_IS_ZERO) for bits in (1, 2, 4, 8, 12, 16)),
        *((_BLACK_IS_ZERO, (8, 8), (extra,)) for extra in (0, 1, 2)),
        *((_RGB, (bits,) * 3, ()) for bits in (8, 16)),
        *((_RGB, (bits,) * 4, (extra,)) for bits in (8, 16) for extra in (0, 1, 2)),
        *((_PALETTE, (bits,), ()) for bits in (1, 2, 4, 8)),
        (_CMYK, (8,) * 4, ()),
        (_YCBCR, (8,) * 3, ()),
    }
)
_PLANES_READ = frozenset({(_RGB, (8,) * 3, ())})


@dataclass(frozen=True, slots=True)
class Page:
    """The tags of one page; `order` is "<" or ">"."""

    order: str
    tags: dict[int, tuple[int, ...]]

    def one(self, tag: int, default: int) -> int:
        return self.tags.get(tag, (default,))[0]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.one(_WIDTH, 0), self.one(_HEIGHT, 0)

    @property
    def bits(self) -> tuple[int, ...]:
        samples = self.one(_SAMPLES, 1)
        found = self.tags.get(_BITS, (1,))
        return found * samples if len(found) == 1 and samples <= 16 else found[:samples]


def read_tiff(content: bytes, check_size: CheckSize) -> tuple[Image.Image, int]:
    """The decoded first page and its orientation, 1 to 8.

    Args:
        content: the whole file; begins with one of `SIGNATURES`.
        check_size: called with width and height before memory is reserved.

    Raises:
        RefusedImage: its pixels are of a kind that is not read; names it.
        ValueError: it is damaged or truncated; says why.
    """
    page = _first_page(content)
    _check_kind(page)
    check_size(*page.size)
    pixel_bytes = 1 if len(page.bits) == 1 and page.one(_PHOTOMETRIC, -1) != _PALETTE else 4
    check_whole(page.size[0] * page.size[1], max(pixel_bytes, (sum(page.bits) + 7) // 8), "TIFF")
    _check_data(page, content, check_size)
    image: Image.Image = StrictTiff(io.BytesIO(_for_pillow(page, content)), "")
    image.load()
    if page.bits in ((12,), (16,)):
        grey = np.asarray(image).astype(np.uint16)
        if page.bits == (12,):
            grey = ((grey.astype(np.uint32) * 65535 + 2047) // 4095).astype(np.uint16)
        if page.one(_PHOTOMETRIC, -1) == _WHITE_IS_ZERO:
            grey = ~grey
        image = Image.fromarray((grey >> 8).astype(np.uint8))
    if page.bits == (8, 8) and page.tags[_EXTRA] == (0,):
        image = image.getchannel("L")
    if page.bits == (8, 8) and page.tags[_EXTRA] == (1,):
        image = Image.frombytes("La", image.size, image.tobytes())
    turn = page.one(_ORIENTATION, 1)
    return image, turn if 1 <= turn <= 8 else 1


def _first_page(content: bytes) -> Page:
    order, is_big = "<" if content[:2] == b"II" else ">", content[2:4] in (b"+\0", b"\0+")
    width = 8 if is_big else 4  # bytes of an offset
    offset, count_code, entry = ("Q", "Q", 20) if is_big else ("I", "H", 12)
    try:
        (start,) = struct.unpack_from(order + offset, content, 8 if is_big else 4)
        (entries,) = struct.unpack_from(order + count_code, content, start)
        start += struct.calcsize(order + count_code)
        tags: dict[int, tuple[int, ...]] = {}
        for at in range(start, start + entry * min(entries, _MOST_VALUES), entry):
            tag, kind, count = struct.unpack_from(f"{order}HH{offset}", content, at)
            if tag not in _LOOKED_AT or tag in tags:
                continue
            if kind not in _CODES or not 0 < count <= _MOST_VALUES:
                raise ValueError(f"TIFF: tag {tag} of type {kind} with {count:,} values")
            values = f"{order}{count}{_CODES[kind]}"
            place = at + entry - width
            if struct.calcsize(values) > width:
                (place,) = struct.unpack_from(order + offset, content, place)
            tags[tag] = struct.unpack_from(values, content, place)
    except (struct.error, OverflowError):
        raise ValueError("TIFF: ends before its tags") from None
    return Page(order, tags)


def _check_kind(page: Page) -> None:
    """Whether pixels of this kind are read right."""
    if page.one(_SUBFILE, 0) & 1 or page.one(_OLD_SUBFILE, 1) == 2 or _DNG in page.tags:
        raise RefusedImage("is a TIFF (such as a camera's raw file) whose first page is a thumbnail; convert it first")
    photometric, bits, extra = page.one(_PHOTOMETRIC, -1), page.bits, page.tags.get(_EXTRA, ())
    formats, planes, compression = page.tags.get(_FORMAT, (1,)), page.one(_PLANES, 1), page.one(_COMPRESSION, 1)
    kind = (photometric, bits, extra)
    known = _PACKED | {_JPEG} | (_FAX if bits == (1,) else frozenset())
    is_read = (
        kind in (_PLANES_READ if planes == 2 and len(bits) > 1 else _READ)
        and set(formats) == {1}
        and compression in known
        and (compression == _JPEG or photometric != _YCBCR)
        and (compression != _JPEG or (set(bits) == {8} and photometric in (_BLACK_IS_ZERO, _RGB, _YCBCR)))
        and (bits != (12,) or (compression == _PLAIN and page.one(_FILL_ORDER, 1) == 1))
        and (page.one(_FILL_ORDER, 1) == 1 or max(bits) <= 8)
        and page.one(_PREDICTOR, 1) in (1, 2)
        and page.one(_INKS, 1) == 1
    )
    if not is_read:
        shown = "+".join(map(str, bits[:6]))
        raise RefusedImage(
            f"is a TIFF of {_PHOTOMETRICS.get(photometric, f'photometric {photometric}')} with {shown} bits, "
            f"{_FORMATS.get(formats[0], 'unknown')} samples, {'separate' if planes == 2 else 'interleaved'} planes, "
            f"extra samples {list(extra[:4])} and compression {compression}, which is not read; convert it to 8-bit RGB"
        )


def _check_data(page: Page, content: bytes, check_size: CheckSize) -> None:
    """Whether every strip or tile is there, as far as can be seen without decoding it."""
    width, height = page.size
    if not width or not height:
        raise ValueError(f"TIFF: {width}x{height} pixels")
    is_tiled = _TILES in page.tags
    across, down = (
        (page.one(_TILE_WIDTH, 0), page.one(_TILE_HEIGHT, 0)) if is_tiled else (width, page.one(_ROWS, height))
    )
    down = down if is_tiled else min(down, height)
    if not across or not down or across > max(width, 2048) or down > max(height, 2048):
        raise ValueError(f"TIFF: strips or tiles of {across}x{down} pixels")
    planes = len(page.bits) if page.one(_PLANES, 1) == 2 else 1
    wanted = -(-width // across) * -(-height // down) * planes
    offsets = page.tags.get(_TILES if is_tiled else _STRIPS, ())
    lengths = page.tags.get(_TILE_BYTES if is_tiled else _STRIP_BYTES, ())
    if len(offsets) != wanted or len(lengths) != wanted:
        raise ValueError(f"TIFF: {min(len(offsets), len(lengths)):,} of {wanted:,} strips or tiles")
    compression = page.one(_COMPRESSION, _PLAIN)
    row = (across * (sum(page.bits) // planes) + 7) // 8
    if row * down * wanted > 4 * (width * height * sum(page.bits) // 8) + _MOST_BEYOND:
        raise RefusedImage(
            f"is a TIFF of {width}x{height} pixels in {wanted:,} tiles of {across}x{down}, far more than it shows; "
            "save it again"
        )
    for index, (offset, length) in enumerate(zip(offsets, lengths, strict=True)):
        top = index % (wanted // planes) * down
        rows = down if is_tiled else min(down, height - top)
        if offset + length > len(content) or not length or (compression == _PLAIN and length < row * rows):
            raise ValueError(f"TIFF: strip or tile {index} is not complete")
        if compression == _JPEG:
            follow_markers(content[offset : offset + length], check_size)
    if page.one(_PHOTOMETRIC, -1) == _PALETTE and len(page.tags.get(_COLOURS, ())) != 3 << page.bits[0]:
        raise ValueError("TIFF: no palette, or one of another length")


def _for_pillow(page: Page, content: bytes) -> bytes:
    """The file with one page, whose tags are those that the pixels need."""
    tags = {tag: page.tags[tag] for tag in _KEPT if tag in page.tags}
    tags[_BITS], tags[_SAMPLES] = page.bits, (len(page.bits),)
    if page.bits in ((12,), (16,)):
        tags[_PHOTOMETRIC] = (_BLACK_IS_ZERO,)  # turned afterwards
    if page.bits == (8, 8):
        tags[_EXTRA] = (2,)  # of any other, Pillow reads none before 13; mended afterwards
    # Only the order of 16-bit samples depends on the file's; of 12-bit ones Pillow knows one.
    order = page.order if max(page.bits) == 16 else "<"
    start = len(content) + len(content) % 2
    directory, after = struct.pack(f"{order}H", len(tags)), start + 2 + 12 * len(tags) + 4
    extra = b""
    for tag, values in sorted(tags.items()):
        kind = 7 if tag == _TABLES else 4 if tag in (_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES, _WIDTH, _HEIGHT,
                                                     _ROWS, _TILE_WIDTH, _TILE_HEIGHT, 292, 293) else 3  # fmt: skip
        packed = struct.pack(f"{order}{len(values)}{_CODES[kind]}", *values)
        directory += struct.pack(f"{order}HHI", tag, kind, len(values))
        if len(packed) <= 4:
            directory += packed.ljust(4, b"\0")
        else:
            directory += struct.pack(f"{order}I", after + len(extra))
            extra += packed + b"\0" * (len(packed) % 2)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    return b"".join([head, memoryview(content)[8:], b"\0" * (len(content) % 2), directory, bytes(4), extra])
