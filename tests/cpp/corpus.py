"""Images of every kind that both readers know: made here, so that each is known to the byte."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

UInt8Array = NDArray[np.uint8]

# How many samples a pixel has, by PNG colour type: grey, RGB, palette, grey with alpha, RGBA.
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
# Adam7, PNG specification, section 8.2: first column and row, steps of columns and rows.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def pixels(height: int, width: int, seed: int = 0) -> UInt8Array:
    """uint8 [h, w, 3]: smooth colours, edges and noise, so that every step of a decoder has something to do."""
    generator = np.random.default_rng((seed, height, width))
    coarse = generator.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    image[: height // 2, : width // 3] += generator.integers(-60, 60, (height // 2, width // 3, 3), dtype=np.int16)
    image[height // 3 :: 7] = 255 - image[height // 3 :: 7]
    return np.clip(image, 0, 255).astype(np.uint8)


def jpeg(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def tiff_orientation(value: int, *, order: str = "<", kind: int = 3, count: int = 1) -> bytes:
    """A TIFF directory with a description, which lies behind it, and an orientation."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    packed = struct.pack(f"{order}{'H' if kind == 3 else 'I'}", value).ljust(4, b"\0")
    entries = struct.pack(f"{order}HHII", 0x010E, 2, 8, 38) + struct.pack(f"{order}HHI", 0x0112, kind, count) + packed
    return head + struct.pack(f"{order}IH", 8, 2) + entries + struct.pack(f"{order}I", 0) + b"samdepl\0"


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    height: int,
    width: int,
    depth: int,
    colour: int,
    *,
    interlaced: bool = False,
    seed: int = 0,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """Random samples under random filters: any bytes are an image, as long as there are enough of them."""
    generator = np.random.default_rng((seed, height, width, depth, colour))
    bits = depth * _SAMPLES[colour]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    lines = []
    for x, y, step_x, step_y in passes:
        columns, rows = -(-(width - x) // step_x), -(-(height - y) // step_y)
        length = (columns * bits + 7) // 8
        filters = generator.integers(0, 5, rows if columns > 0 else 0, dtype=np.uint8)
        lines += [kind.tobytes() + generator.bytes(length) for kind in filters]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    palette = chunk(b"PLTE", generator.bytes(3 * (1 << depth))) if colour == 3 else b""
    data = zlib.compress(b"".join(lines), 1)
    middle = chunk(b"IDAT", data[: len(data) // 2]) + chunk(b"IDAT", data[len(data) // 2 :])
    return b"".join([b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), palette, before, middle, after, chunk(b"IEND", b"")])


def jpegs() -> Iterator[tuple[str, bytes]]:
    for height, width in ((1, 1), (2, 3), (17, 16), (61, 47), (100, 233)):
        image = Image.fromarray(pixels(height, width))
        for name, subsampling in (("444", 0), ("422", 1), ("420", 2), ("411", "4:1:1")):
            yield f"jpeg-{name}-{height}x{width}", jpeg(image, subsampling=subsampling, quality=85)
        yield f"jpeg-progressive-{height}x{width}", jpeg(image, progressive=True, quality=70)
        yield f"jpeg-grey-{height}x{width}", jpeg(image.convert("L"))
        yield f"jpeg-cmyk-{height}x{width}", jpeg(image.convert("CMYK"), quality=90)
        yield f"jpeg-rgb-{height}x{width}", jpeg(image, keep_rgb=True)
    image = Image.fromarray(pixels(53, 38))
    yield "jpeg-restarts", jpeg(image, restart_marker_blocks=2)
    yield "jpeg-coarse", jpeg(image, quality=3)
    # Ink that is not merely inverted RGB.
    ink = np.random.default_rng(4).integers(0, 256, (32, 40, 4), dtype=np.uint8)
    yield "jpeg-cmyk-ink", jpeg(Image.fromarray(ink, "CMYK"), quality=95)
    yield "jpeg-progressive-cmyk", jpeg(Image.fromarray(ink, "CMYK"), progressive=True)
    for value in range(0, 10):
        exif = b"Exif\0\0" + tiff_orientation(value, order="<>"[value % 2])
        yield f"jpeg-exif-{value}", jpeg(image, exif=exif)
    yield "jpeg-exif-long", jpeg(image, exif=b"Exif\0\0" + tiff_orientation(6, kind=4))
    yield "jpeg-exif-byte", jpeg(image, exif=b"Exif\0\0" + tiff_orientation(6 << 24 | 6, kind=1, order=">"))
    yield "jpeg-exif-undefined-type", jpeg(image, exif=b"Exif\0\0" + tiff_orientation(6, kind=99, order=">"))
    for length in (6, 10, 14, 20, 30, 40, 44):
        yield f"jpeg-exif-cut-{length}", jpeg(image, exif=(b"Exif\0\0" + tiff_orientation(8))[:length])
    yield "jpeg-exif-no-tiff", jpeg(image, exif=b"Exif\0\0" + b"?" * 40)
    xmp = b'<x tiff:Orientation="5"/>'
    yield "jpeg-xmp", jpeg(image, xmp=xmp)
    yield "jpeg-xmp-element", jpeg(image, xmp=b"<tiff:Orientation>7</tiff:Orientation>")
    yield "jpeg-xmp-and-exif", jpeg(image, xmp=xmp, exif=b"Exif\0\0" + tiff_orientation(3))
    yield "jpeg-photo", jpeg(Image.fromarray(pixels(700, 1000)), quality=92)
    yield "jpeg-large", jpeg(Image.fromarray(pixels(3000, 4000)), exif=b"Exif\0\0" + tiff_orientation(6))


def pngs() -> Iterator[tuple[str, bytes]]:
    for colour, depths in _DEPTHS.items():
        for depth in depths:
            for height, width in ((1, 1), (3, 5), (37, 26)):
                for interlaced in (False, True):
                    name = f"png-{colour}-{depth}-{height}x{width}{'-interlaced' if interlaced else ''}"
                    yield name, png(height, width, depth, colour, interlaced=interlaced)
    for depth in (1, 2, 4, 8):  # whole alphas, one transparent entry, and one value for each of several
        for name, alphas in (("one", b"\xff\x00"), ("some", b"\x00\x80"), ("first", b"\x00")):
            yield f"png-palette-{depth}-{name}", png(19, 23, depth, 3, before=chunk(b"tRNS", alphas))
    yield "png-short-palette", _short_palette()
    for value in (0, 1, 255):
        yield f"png-1-transparent-{value}", png(9, 31, 1, 0, before=chunk(b"tRNS", struct.pack(">H", value)))
    for value in (0, 77, 256 + 77):
        yield f"png-8-transparent-{value}", png(64, 64, 8, 0, before=chunk(b"tRNS", struct.pack(">H", value)))
    yield "png-rgb-transparent", _rgb_transparent()
    for value in (1, 3, 6, 8):
        place = "before" if value < 5 else "after"
        exif = chunk(b"eXIf", tiff_orientation(value))
        yield f"png-exif-{value}", png(20, 11, 8, 2, **{place: exif})  # type: ignore[arg-type]
    yield "png-exif-prefix", png(20, 11, 8, 2, before=chunk(b"eXIf", b"Exif\0\0" + tiff_orientation(6)))
    hexadecimal = (b"Exif\0\0" + tiff_orientation(6)).hex()
    profile = f"\nexif\n      56\n{hexadecimal[:72]}\n{hexadecimal[72:]}\n".encode()
    key = b"Raw profile type exif\0"
    yield "png-profile", png(20, 11, 8, 2, before=chunk(b"zTXt", key + b"\0" + zlib.compress(profile)))
    yield "png-profile-broken", png(20, 11, 8, 2, before=chunk(b"tEXt", key + b"\nexif\n 2\n0g\n"))
    xmp = b"XML:com.adobe.xmp\0\0\0\0\0" + b'<x tiff:Orientation="6"/>'
    yield "png-xmp", png(20, 11, 8, 2, after=chunk(b"iTXt", xmp))
    yield "png-colours", png(20, 11, 8, 2, before=chunk(b"gAMA", struct.pack(">I", 30000)) + chunk(b"sRGB", b"\0"))
    yield "png-large", png(3000, 4000, 1, 0)


def _short_palette() -> bytes:
    """Indices of a palette that has two of 256 colours."""
    whole = png(16, 16, 8, 3)
    at = whole.index(b"PLTE") - 4
    return whole[:at] + chunk(b"PLTE", b"\x10\x20\x30\xa0\xb0\xc0") + whole[at + 12 + 768 :]


def _rgb_transparent() -> bytes:
    """Half of the pixels have the transparent colour, the others one that is close."""
    row = b"\0" + b"\x01\x02\x03\x01\x02\x04" * 8
    header = struct.pack(">IIBBBBB", 16, 4, 8, 2, 0, 0, 0)
    colour = chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))
    data = chunk(b"IDAT", zlib.compress(row * 4))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + colour + data + chunk(b"IEND", b"")


def too_far_off(folder: Path) -> Path:
    """An image to which the network of the digits has no finite answer; see tests/classifier/test_no_answer.py."""
    Image.new("RGB", (40, 25), "red").save(folder / "red.png")
    return folder / "red.png"
