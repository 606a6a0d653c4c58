"""Sound images of every kind, damaged in every way that one can name, and at random."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.cpp import corpus, hostile_images

SEED = 21
FLIPS = 24  # random ones, of each image


def images() -> dict[str, bytes]:
    image = Image.fromarray(corpus.pixels(48, 64))
    ink = Image.fromarray(np.random.default_rng(4).integers(0, 256, (32, 40, 4), dtype=np.uint8), "CMYK")
    exif = corpus.chunk(b"eXIf", corpus.tiff_orientation(6))
    return {
        "jpeg": corpus.jpeg(image, quality=80),
        "jpeg-progressive": corpus.jpeg(image, quality=80, progressive=True, subsampling=0),
        "jpeg-grey": corpus.jpeg(image.convert("L")),
        "jpeg-cmyk": corpus.jpeg(ink, quality=90),
        "jpeg-restarts": corpus.jpeg(image, restart_marker_blocks=3),
        "jpeg-exif": corpus.jpeg(image, exif=b"Exif\0\0" + corpus.tiff_orientation(6)),
        "png-rgb": corpus.png(30, 40, 8, 2, before=exif),
        "png-rgba16-interlaced": corpus.png(20, 30, 16, 6, interlaced=True),
        "png-palette4": corpus.png(30, 40, 4, 3, before=corpus.chunk(b"tRNS", b"\x10\x80")),
        "png-grey16": corpus.png(30, 40, 16, 0),
        "png-grey1-interlaced": corpus.png(30, 40, 1, 0, interlaced=True),
        "png-grey-alpha": corpus.png(30, 40, 8, 4),
        "png-black": hostile_images.black_png(40, 30),
    }


def cases() -> Iterator[tuple[str, bytes]]:
    for name, whole in images().items():
        yield name, whole
        yield from ((f"{name}: {what}", content) for what, content in _of_any(whole))
        special = _of_jpeg(whole) if name.startswith("jpeg") else _of_png(whole)
        yield from ((f"{name}: {what}", content) for what, content in special)


def _of_any(whole: bytes) -> Iterator[tuple[str, bytes]]:
    size, chance = len(whole), random.Random(SEED)
    for tenth in range(1, 10):
        end = size * tenth // 10
        yield f"cut at {tenth}0 %", whole[:end]
        yield f"zeros from {tenth}0 %", whole[:end] + bytes(size - end)
    for less in (1, 2, 3, 4, 8, 12, 13):
        yield f"without the last {less} bytes", whole[:-less]
    yield "trailing zeros", whole + bytes(1000)
    yield "trailing image", whole + whole
    for index in range(FLIPS):
        flipped = bytearray(whole)
        for _ in range(1 + index % 3):
            flipped[chance.randrange(2, size)] ^= 1 << chance.randrange(8)
        yield f"flip {index}", bytes(flipped)


def _of_jpeg(whole: bytes) -> Iterator[tuple[str, bytes]]:
    frame = min(at for at in (whole.find(b"\xff\xc0"), whole.find(b"\xff\xc2")) if at > 0)
    scan = whole.index(b"\xff\xda")
    for marker in range(0xC0, 0xD0):
        yield f"frame {marker:X}", whole[: frame + 1] + bytes([marker]) + whole[frame + 2 :]
    for bits in (2, 12, 16):
        yield f"{bits} bits", whole[: frame + 4] + bytes([bits]) + whole[frame + 5 :]
    for height, width in ((0, 64), (48, 0), (1000, 64), (48, 1000)):
        yield f"{width}x{height}", whole[: frame + 5] + struct.pack(">HH", height, width) + whole[frame + 9 :]
    yield "two frames", whole[:scan] + whole[frame:]
    yield "no tables", whole[:2] + whole[frame:]
    yield "no scan", whole[:scan] + b"\xff\xd9"
    yield "no data", whole[: scan + 2 + int.from_bytes(whole[scan + 2 : scan + 4], "big")] + b"\xff\xd9"
    yield "a scan more", whole[:-2] + whole[scan:]
    yield "no EOI but a second image", whole[:-2] + whole
    for marker in (0x01, 0x02, 0xBF, 0xD0, 0xD8, 0xDC, 0xDE, 0xDF, 0xE0, 0xEE, 0xEF, 0xF0, 0xFD, 0xFE):
        yield f"marker {marker:X}", whole[:2] + bytes([0xFF, marker, 0, 4, 0, 3]) + whole[2:]
        yield f"marker {marker:X} before EOI", whole[:-2] + bytes([0xFF, marker, 0, 4, 0, 3]) + whole[-2:]
    yield "fill bytes", whole[:2] + b"\xff" * 9 + whole[2:]
    yield "zeros between markers", whole[:2] + bytes(9) + whole[2:]
    yield "short segment", whole[:2] + b"\xff\xfe\0\1" + whole[2:]
    restarts = [at for at in range(scan, len(whole) - 1) if whole[at] == 0xFF and 0xD0 <= whole[at + 1] <= 0xD7]
    for at in restarts[:4]:
        yield f"restart lost at {at}", whole[:at] + whole[at + 2 :]
        yield f"restart twice at {at}", whole[:at] + whole[at : at + 2] + whole[at:]
        yield f"restart out of turn at {at}", whole[: at + 1] + b"\xd7" + whole[at + 2 :]
    for count in (10, 90, 100):
        yield f"{count} scans more", whole[:-2] + hostile_images.empty_scan(64, 48) * count + whole[-2:]


def _of_png(whole: bytes) -> Iterator[tuple[str, bytes]]:
    parts = list(_chunks(whole))
    start = whole[:8]

    def file(chunks: list[tuple[bytes, bytes]]) -> bytes:
        return start + b"".join(corpus.chunk(kind, data) for kind, data in chunks)

    for index, (kind, data) in enumerate(parts):
        name = f"{kind.decode()} {index}"
        at = whole.index(corpus.chunk(kind, data))
        end = at + 12 + len(data)
        yield f"checksum of {name}", whole[: end - 1] + bytes([whole[end - 1] ^ 1]) + whole[end:]
        yield f"without {name}", file(parts[:index] + parts[index + 1 :])
        yield f"twice {name}", file([*parts[:index], parts[index], *parts[index:]])
        yield f"empty {name}", file([*parts[:index], (kind, b""), *parts[index + 1 :]])
        yield f"longer {name}", file([*parts[:index], (kind, data + b"\0"), *parts[index + 1 :]])
        yield f"last {name}", file([*parts[:index], *parts[index + 1 : -1], parts[index], parts[-1]])
        for odd in (b"quIt", b"acTL", b"CRIT", b"tRNS", b"PLTE", b"iCCP", b"gAMA", b"sBIT", b"tEXt", b"eXIf"):
            yield f"{odd.decode()} before {name}", file([*parts[:index], (odd, b"\1\2\3"), *parts[index:]])
    header = parts[0][1]
    for place, values in ((8, (0, 1, 2, 3, 4, 8, 16, 32)), (9, range(8)), (10, (1,)), (11, (1,)), (12, (0, 1, 2))):
        for value in values:
            changed = header[:place] + bytes([value]) + header[place + 1 :]
            yield f"header {place} is {value}", file([(b"IHDR", changed), *parts[1:]])
    for width, height in ((0, 1), (1, 0), (41, 30), (40, 31), (30, 20), (1 << 31, 1)):
        changed = struct.pack(">II", width, height) + header[8:]
        yield f"{width}x{height}", file([(b"IHDR", changed), *parts[1:]])
    data = b"".join(content for kind, content in parts if kind == b"IDAT")
    others = [each for each in parts if each[0] != b"IDAT"]
    rows = zlib.decompress(data)
    for what, packed in (
        ("no checksum", data[:-4]),
        ("wrong checksum", data[:-1] + bytes([data[-1] ^ 1])),
        ("half a checksum", data[:-2]),
        ("a byte less", zlib.compress(rows[:-1])),
        ("a byte more", zlib.compress(rows + b"\0")),
        ("many bytes more", zlib.compress(rows + bytes(100_000))),
        ("other bytes behind", data + b"junk"),
        ("no compression", zlib.compress(rows, 0)),
        ("deflate alone", data[2:]),
        ("unknown filter", zlib.compress(b"\x07" + rows[1:])),
    ):
        yield f"pixels with {what}", file([*others[:-1], (b"IDAT", packed), others[-1]])
    pieces = [(b"IDAT", data[at : at + 7]) for at in range(0, len(data), 7)]
    yield "IDAT in pieces", file([*others[:-1], *pieces, others[-1]])
    yield "IDAT with text between", file([*others[:-1], pieces[0], (b"tEXt", b"a\0b"), *pieces[1:], others[-1]])
    yield (
        "APNG",
        file([parts[0], (b"acTL", struct.pack(">II", 2, 0)), *parts[1:-1], (b"fdAT", b"\0\0\0\2" + data), parts[-1]]),
    )


def _chunks(whole: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(whole):
        length = int.from_bytes(whole[at : at + 4], "big")
        yield whole[at + 4 : at + 8], whole[at + 8 : at + 8 + length]
        at += 12 + length
