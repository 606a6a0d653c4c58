"""Files of a few kilobytes up to a few megabytes that ask a decoder for gigabytes or minutes."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from tests.cpp import corpus

SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP_KEY, EXIF_KEY = b"XML:com.adobe.xmp", b"Raw profile type exif"
# An AC refinement scan of no block: EOBRUN 32767 as often as it takes, in one Huffman code of one bit.
_LONGEST_RUN = 32767


def png_file(
    width: int, height: int, depth: int, colour: int, data: bytes, *, before: bytes = b"", lace: int = 0
) -> bytes:
    """A PNG around the compressed `data`; `before`: chunks ahead of it."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, lace)
    return b"".join(
        [SIGNATURE, corpus.chunk(b"IHDR", header), before, corpus.chunk(b"IDAT", data), corpus.chunk(b"IEND", b"")]
    )


def zeros(count: int, level: int = 9) -> bytes:
    """`count` zero bytes, compressed in pieces: a thousandth of them."""
    packer, piece = zlib.compressobj(level), bytes(1 << 20)
    parts = [packer.compress(piece) for _ in range(count >> 20)]
    return b"".join([*parts, packer.compress(bytes(count & ((1 << 20) - 1))), packer.flush()])


def black_png(width: int, height: int, depth: int = 8, colour: int = 2, *, lace: int = 0, before: bytes = b"") -> bytes:
    """All samples are 0."""
    row = 1 + (width * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] + 7) // 8
    count = row * height if not lace else row * height + 15 * height + 64  # more than enough: the rest is not read
    return png_file(width, height, depth, colour, zeros(count), before=before, lace=lace)


def texts(count: int, key: bytes, inflated: int) -> bytes:
    """Small PNG with `count` chunks zTXt of `inflated` bytes each."""
    body = key + b"\0\0" + zeros(inflated)
    return corpus.png(20, 20, 8, 2, before=corpus.chunk(b"zTXt", body) * count)


def xmp_texts(count: int, inflated: int) -> bytes:
    body = XMP_KEY + b"\0\1\0\0\0" + zeros(inflated)
    return corpus.png(20, 20, 8, 2, before=corpus.chunk(b"iTXt", body) * count)


def profiles(count: int, inflated: int) -> bytes:
    body = b"icc\0\0" + zeros(inflated)
    return corpus.png(20, 20, 8, 2, before=corpus.chunk(b"iCCP", body) * count)


def empty_idats(count: int) -> bytes:
    whole = corpus.png(20, 20, 8, 2)
    at = whole.index(b"IDAT") - 4
    return whole[:at] + corpus.chunk(b"IDAT", b"") * count + whole[at:]


def progressive_jpeg(width: int, height: int, extra_scans: int) -> bytes:
    """A progressive JPEG of one colour with further scans that change nothing: a megabyte takes minutes."""
    file = io.BytesIO()
    Image.new("L", (width, height), 90).save(file, "JPEG", progressive=True)
    whole = file.getvalue()
    scan = empty_scan(width, height)
    return whole[:-2] + scan * extra_scans + b"\xff\xd9"


def empty_scan(width: int, height: int) -> bytes:
    """One AC refinement scan (component 1, coefficients 1 to 63, bit 1 to 0) in which every block ends at once."""
    blocks = -(-width // 8) * -(-height // 8)
    table = b"\xff\xc4" + struct.pack(">H", 2 + 1 + 16 + 1) + b"\x10" + bytes([1] + [0] * 15) + b"\xe0"
    bits, left = "", blocks  # symbol E0: a run of 2**14 + the 14 bits that follow; its code is "0"
    while left > 0:
        run = min(left, _LONGEST_RUN)
        if run < 1 << 14:
            run = 1 << 14
        bits += "0" + format(run - (1 << 14), "014b")
        left -= run
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    header = b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0x10, 1, 63, 0x10)
    return table + header + data


def claimed_jpeg(width: int, height: int, *, progressive: bool, colour: bool = True) -> bytes:
    """A small JPEG whose header claims another size."""
    small = corpus.jpeg(Image.new("RGB" if colour else "L", (16, 16)), progressive=progressive, subsampling=0)
    at = small.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 5
    return small[:at] + struct.pack(">HH", height, width) + small[at + 4 :]


def flat_jpeg(width: int, height: int, **options: object) -> bytes:
    return corpus.jpeg(Image.new("RGB", (width, height), (200, 30, 90)), **options)


def metadata_jpeg(count: int, head: bytes) -> bytes:
    """`count` APP1 markers of 64 KiB."""
    small = corpus.jpeg(Image.fromarray(corpus.pixels(20, 20)))
    marker = b"\xff\xe1" + struct.pack(">H", 65535) + head + bytes(65533 - len(head))
    return small[:2] + marker * count + small[2:]


def noise_png(width: int, height: int) -> bytes:
    rows = np.random.default_rng(3).integers(0, 256, (height, 1 + width), dtype=np.uint8)
    rows[:, 0] = 0
    return png_file(width, height, 8, 0, zlib.compress(rows.tobytes(), 0))


# Name -> file.  Those that are read as images are read in full; nothing is asked of the others than to be refused.
FILES: dict[str, Callable[[], bytes]] = {
    "png-wide": lambda: black_png(60_000_000, 1, 8, 0),
    "png-tall": lambda: black_png(1, 60_000_000, 8, 0),
    "png-wide-million": lambda: black_png(1 << 20, 100, 8, 2),
    "png-largest-square": lambda: black_png(13_377, 13_377, 8, 2),
    "png-largest-interlaced": lambda: black_png(13_377, 13_377, 8, 0, lace=1),
    "png-interlaced-rgba16": lambda: black_png(7_000, 6_000, 16, 6, lace=1),
    "png-300-texts": lambda: texts(300, b"Comment", 8_300_000),
    "png-300-exif-texts": lambda: texts(300, EXIF_KEY, 8_300_000),
    "png-300-xmp": lambda: xmp_texts(300, 8_300_000),
    "png-text-of-200-MB": lambda: texts(1, EXIF_KEY, 200_000_000),
    "png-profile-of-200-MB": lambda: profiles(1, 200_000_000),
    "png-200000-chunks": lambda: corpus.png(20, 20, 8, 2, before=corpus.chunk(b"quIt", b"") * 200_000),
    "png-60-MiB-of-noise": lambda: noise_png(8_000, 7_800),
    "jpeg-many-scans": lambda: progressive_jpeg(8_000, 8_000, 300),
    "jpeg-all-scans-allowed": lambda: progressive_jpeg(4_600, 4_600, 94),
    "jpeg-largest-progressive": lambda: progressive_jpeg(9_100, 9_100, 15),
    "jpeg-largest": lambda: flat_jpeg(13_300, 13_300),
    "jpeg-largest-rotated": lambda: flat_jpeg(13_300, 13_300, exif=b"Exif\0\0" + corpus.tiff_orientation(6)),
    "jpeg-claims-progressive": lambda: claimed_jpeg(13_300, 13_300, progressive=True),
    "jpeg-claims-65500": lambda: claimed_jpeg(65_500, 65_500, progressive=False),
    "jpeg-60-MiB-of-exif": lambda: metadata_jpeg(900, b"Exif\0\0"),
}
REFUSED = {
    "png-wide",
    "png-tall",
    "png-largest-interlaced",
    "png-200000-chunks",
    "jpeg-many-scans",
    "jpeg-claims-progressive",
    "jpeg-claims-65500",
}
# What a resize takes depends on the size of the image that is read, whatever its file is made of.
RESIZED = ("png-wide-million", "png-largest-square", "jpeg-largest", "jpeg-largest-rotated")
