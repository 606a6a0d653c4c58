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

from PIL import Image

from samdeploy.images.metadata import MOST_METADATA, orientation
from samdeploy.images.refused import CheckSize, RefusedImage, check_held
from samdeploy.images.strict import StrictPng, opened

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_PALETTE = 3
# Adam7: first column, first row, and the steps between columns and rows, of each pass.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
# Deflate makes at most 1,032 bytes of one.
_LARGEST_RATIO = 1032
_AT_ONCE = 1 << 18
_MOST_CHUNKS = 1 << 16
_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_EXIF_KEYWORD, _XMP_KEYWORD = b"Raw profile type exif", b"XML:com.adobe.xmp"
# Stored like this, a transparent colour is lost: Pillow compares its full value with the pixels' 8-bit ones.
_TRANSPARENT_COLOUR_LOST = ("L;2", "L;4", "I;16B", "RGB;16B")


@dataclass(frozen=True, slots=True)
class StoredPixels:
    """What a file holds of its pixels, still compressed.

    Attributes:
        chunks: those that the pixels are made from, whole, with the signature before them.
        parts: data of each IDAT.
        needed: bytes of pixels, once inflated.
        exif, xmp: the blocks; None if absent or damaged.
    """

    chunks: list[memoryview]
    parts: list[memoryview]
    needed: int
    is_interlaced: bool
    exif: bytes | None
    xmp: bytes | None

    def check_rows(self, last_row: bytes) -> None:
        """Whether every row was there when the file was decoded.

        Pillow puts the rows one after the other into zeros, so a last row that holds anything else had all the others
        before it.  Zeros alone may be black or missing, and an interlaced file comes to its last row early: only
        there are the pixels inflated again, which takes about as long as decoding them.

        Args:
            last_row: the decoded image's, in the mode that it was stored in.

        Raises:
            ValueError: how many bytes are missing.
        """
        if not self.is_interlaced and any(last_row):
            return
        found = _inflated(self.parts, self.needed)
        if found < self.needed:
            raise ValueError(f"PNG: {found:,} of {self.needed:,} bytes of pixels")


def read_png(content: bytes, check_size: CheckSize) -> tuple[Image.Image, int]:
    """The decoded image and its orientation, 1 to 8.

    Args:
        content: the whole file; begins with `SIGNATURE`.
        check_size: called with width and height before memory is reserved.

    Raises:
        ValueError: it is damaged, truncated, or of a kind that is not read; says why.
    """
    stored = check_png(content, check_size)
    image = opened(StrictPng, content, stored.chunks)
    if "transparency" in image.info and image.tile[0].args in _TRANSPARENT_COLOUR_LOST:
        raise RefusedImage("has a transparent colour beside 2, 4 or 16 bits per channel; convert it to RGBA first")
    image.load()
    last_row = (0, image.height - 1, image.width, image.height)
    stored.check_rows(image.resize((image.width, 1), Image.Resampling.NEAREST, last_row).tobytes())
    return image, orientation(stored.exif, stored.xmp)


def check_png(content: bytes, check_size: CheckSize = lambda *_: None) -> StoredPixels:
    """Look at the chunks, at the checksums of those that matter, and whether the pixels can be as many as promised.

    Args:
        content: the whole file; begins with `SIGNATURE`.
        check_size: called with width and height.

    Raises:
        ValueError: what is missing or damaged.
    """
    view = memoryview(content)
    chunks = [view[: len(SIGNATURE)]]
    parts: list[memoryview] = []
    metadata: dict[bytes, memoryview] = {}  # the last of each kind; the others are never inflated
    needed, is_indexed, is_interlaced, has_palette, has_end = 0, False, False, False, False
    for kind, data, whole in _chunks(view):
        if not needed and kind != b"IHDR":
            raise ValueError("PNG: does not begin with IHDR")
        if parts and kind in (b"PLTE", b"tRNS"):
            raise ValueError(f"PNG: {kind.decode()} after pixels")
        if kind == b"IHDR":
            if needed or len(data) != 13:
                raise ValueError("PNG: damaged IHDR")
            width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", data)
            if compression or filtering or interlace > 1:
                raise ValueError("PNG: damaged IHDR")
            if not width or not height:
                raise ValueError(f"PNG: {width}x{height} pixels")
            check_size(width, height)
            is_indexed, is_interlaced = colour == _PALETTE, bool(interlace)
            if is_interlaced:
                check_held(3 * width * height, "interlaced PNG")
            needed = _bytes_of_pixels(width, height, depth * _CHANNELS.get(colour, 1), is_interlaced=is_interlaced)
        elif kind == b"PLTE":
            if is_indexed and (has_palette or len(data) not in range(3, 769, 3)):
                raise ValueError("PNG: damaged palette")
            has_palette = True
        elif kind == b"IDAT":
            if is_indexed and not has_palette:
                raise ValueError("PNG: no palette")
            parts.append(data)
        elif kind == b"IEND":
            has_end = True
        elif kind == b"eXIf":
            metadata[kind] = whole
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            keyword = bytes(data[:80]).partition(b"\0")[0]
            if keyword in (_EXIF_KEYWORD, _XMP_KEYWORD):
                metadata[keyword] = whole
        elif kind != b"tRNS" and _is_critical(kind):
            raise ValueError(f"PNG: unknown critical chunk {kind.decode('latin-1')!r}")
        if kind in _PIXELS:
            chunks.append(whole)
    if not has_end:
        raise ValueError("PNG: ends before its last chunk, IEND")
    most = sum(len(part) for part in parts) * _LARGEST_RATIO
    if not needed or most < needed:  # known without making them
        raise ValueError(f"PNG: at most {most:,} of {needed:,} bytes of pixels")
    sound = {key: whole for key, whole in metadata.items() if _is_sound(whole)}
    exif = bytes(sound[b"eXIf"][8:-4]) if b"eXIf" in sound else _exif_profile(_text(sound.get(_EXIF_KEYWORD)))
    return StoredPixels(chunks, parts, needed, is_interlaced, exif, _text(sound.get(_XMP_KEYWORD)))


def _chunks(view: memoryview) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Type, data and the whole of each chunk to the end, or to IEND; those of the pixels with checksums compared."""
    at, count = len(SIGNATURE), 0
    while at < len(view):
        count += 1
        if count > _MOST_CHUNKS:
            raise ValueError(f"PNG: more than {_MOST_CHUNKS:,} chunks")
        if at + 12 > len(view):
            raise ValueError("PNG: ends in the middle of a chunk")
        length, kind = struct.unpack(">I4s", view[at : at + 8])
        end = at + 12 + length
        if end > len(view):
            raise ValueError(f"PNG: ends in the middle of chunk {kind.decode('latin-1')!r}")
        whole = view[at:end]
        if (_is_critical(kind) or kind == b"tRNS") and not _is_sound(whole):
            raise ValueError(f"PNG: checksum of chunk {kind.decode('latin-1')!r} is wrong")
        yield kind, view[at + 8 : end - 4], whole
        if kind == b"IEND":
            return
        at = end


def _is_critical(kind: bytes) -> bool:
    return not kind[0] & 0x20


def _is_sound(chunk: memoryview) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _text(chunk: memoryview | None) -> bytes | None:
    """A text, inflated; None if it is absent, damaged or longer than `MOST_METADATA`."""
    if chunk is None:
        return None
    kind, content = bytes(chunk[4:8]), bytes(chunk[8:-4]).partition(b"\0")[2]
    is_deflated = kind == b"zTXt"
    if kind == b"zTXt":
        method, content = content[:1], content[1:]
    elif kind == b"iTXt":
        is_deflated, method = content[:1] == b"\1", content[1:2]
        content = content[2:].partition(b"\0")[2].partition(b"\0")[2]  # language, translated keyword
    if is_deflated:
        stream = zlib.decompressobj()
        try:
            content = stream.decompress(content, MOST_METADATA + 1) if method == b"\0" else b""
        except zlib.error:
            return None
        if not stream.eof and len(content) <= MOST_METADATA:
            return None
    return content if len(content) <= MOST_METADATA else None


def _exif_profile(text: bytes | None) -> bytes | None:
    """EXIF as ImageMagick writes it: two lines of heading, then hexadecimal digits; None where these are damaged."""
    try:
        return None if text is None else bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("latin-1"))
    except ValueError:
        return None


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
