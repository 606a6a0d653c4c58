"""A PNG is taken whole or not at all: what Pillow passes over is seen before anything is decoded."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from samdeploy.errors import ImageError
from samdeploy.images.decode import decode
from samdeploy.images.png import SIGNATURE, check_png

Chunks = list[tuple[bytes, bytes]]


def encoded(mode: str, size: tuple[int, int] = (13, 7)) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def chunks(content: bytes) -> Chunks:
    found, at = [], len(SIGNATURE)
    while at < len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        found.append((kind, content[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def written(parts: Chunks) -> bytes:
    return SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def with_rows(content: bytes, keep: float, *, level: int = 9) -> bytes:
    """The same header with so much of the pixels' bytes, and everything else in order."""
    parts = chunks(content)
    raw = zlib.decompress(b"".join(data for kind, data in parts if kind == b"IDAT"))
    short = zlib.compress(raw[: round(keep * len(raw))], level)
    first = next(index for index, (kind, _) in enumerate(parts) if kind == b"IDAT")
    others = [part for part in parts if part[0] != b"IDAT"]
    return written([*others[:first], (b"IDAT", short), *others[first:]])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_whole_files_of_every_kind_are_taken(mode: str) -> None:
    content = encoded(mode)
    check_png(content)
    decode(content)
    check_png(content + b"what comes after the end is no concern")


def interlaced(width: int, height: int) -> bytes:
    """Grey, 8 bits, Adam7; Pillow writes none."""
    raw = b""
    for x, y, right, down in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
                              (0, 1, 1, 2)):  # fmt: skip
        columns, rows = len(range(x, width, right)), len(range(y, height, down))
        raw += (b"\0" + b"\x7f" * columns) * rows if columns else b""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)
    return written([(b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")])


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 1), (4, 5), (9, 3), (16, 16)])
def test_interlaced_files_are_counted_pass_by_pass(width: int, height: int) -> None:
    content = interlaced(width, height)
    assert (decode(content) == 127).all()
    with pytest.raises(ImageError, match="damaged or truncated"):  # the smallest are seen by Pillow itself
        decode(with_rows(content, 0.5))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_missing_rows_are_not_black(mode: str, keep: float) -> None:
    content = with_rows(encoded(mode, (40, 40)), keep)
    # Pillow itself sees some of the smallest.
    words = r"PNG: (at most )?[\d,]+ of [\d,]+ bytes of pixels|image file is truncated.*"
    with pytest.raises(ImageError, match=rf"image: damaged or truncated \(({words})\)"):
        decode(content)


def test_rows_that_are_black_are_not_missing() -> None:
    content = io.BytesIO()
    Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8)).save(content, "PNG")
    assert not decode(content.getvalue()).any()
    with pytest.raises(ImageError, match="damaged or truncated"):
        decode(with_rows(content.getvalue(), 0.99))


def test_pixels_are_inflated_again_only_where_the_last_row_is_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inflating them always made a photograph's preparation 1.45 times as long."""
    counted: list[int] = []
    monkeypatch.setattr("samdeploy.images.png._inflated", lambda _, needed: counted.append(needed) or needed)
    decode(encoded("RGB", (40, 40)))
    assert not counted
    decode(interlaced(8, 8))
    assert counted == [79]


def test_a_file_that_ends_too_early_is_refused_wherever_it_ends() -> None:
    content = encoded("RGB")
    for end in range(len(SIGNATURE), len(content)):
        with pytest.raises(ImageError):
            decode(content[:end])
    with pytest.raises(ImageError, match="PNG: ends before its last chunk, IEND"):
        decode(content[:-12])


def test_a_wrong_checksum() -> None:
    content = bytearray(encoded("RGB"))
    at = content.index(b"IDAT")
    length = int.from_bytes(content[at - 4 : at], "big")
    content[at + 4 + length] ^= 1
    with pytest.raises(ImageError, match="PNG: checksum of chunk 'IDAT' is wrong"):
        decode(bytes(content))


def test_a_palette_that_is_missing() -> None:
    parts = [part for part in chunks(encoded("P")) if part[0] != b"PLTE"]
    with pytest.raises(ImageError, match="PNG: no palette"):
        decode(written(parts))


def test_few_bytes_that_promise_a_giant_are_refused_before_it_is_made() -> None:
    header = struct.pack(">IIBBBBB", 1, 170_000_000, 8, 0, 0, 0, 0)
    content = written([(b"IHDR", header), (b"IDAT", bytes(100)), (b"IEND", b"")])
    with pytest.raises(ImageError, match=r"PNG: at most 103,200 of 340,000,000 bytes of pixels"):
        decode(content)
