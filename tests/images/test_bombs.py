"""Small or empty files that would take a decoder seconds or gigabytes."""

from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image

from samdeploy.errors import ImageError
from samdeploy.images.decode import decode
from tests.images.image_files import encoded, noise
from tests.images.tiffs import tiff

_TILES = 300
_THIN_TILES = tiff(
    [bytes(8)], (1, 2048 * _TILES), [8], 1, t259=8, t322=2048, t323=2048, t324=[8] * _TILES, t325=[8] * _TILES
)
_LARGE_TIFF = tiff([bytes(8)], (8000, 8000), [16] * 4, 2, t259=8, t338=2)
_GIF = encoded(Image.new("L", (4, 4)), "GIF")
_FRAME = _GIF.index(b"\x2c", 13)
# One colour, so 46 bytes.
_LARGE_WEBP = encoded(Image.new("RGB", (8300, 8300)), "WEBP", lossless=True, method=0, quality=0)
_TOO_MUCH = "at most 256 are allowed, scale it down first or convert it to JPEG"

REFUSED = {
    "blanks in a header": (b"P6" + b" " * (1 << 20) + b"1 1 255\n123", "a Netpbm whose header is longer than 64 KiB"),
    "a comment in a header": (b"P6 #" + b"." * (1 << 20), "a Netpbm whose header is longer than 64 KiB"),
    "tiles beyond the image": (_THIN_TILES, "a TIFF of 1x614400 pixels in 300 tiles of 2048x2048, far more"),
    "blocks of one byte": (
        _GIF[:_FRAME] + b"\x21\xfe" + b"\x01a" * (1 << 20) + b"\0" + _GIF[_FRAME:],
        "a GIF of more than 1,048,576 blocks",
    ),
    "a large TIFF": (_LARGE_TIFF, f"a TIFF of 64,000,000 pixels, which are 488 MiB while it is decoded; {_TOO_MUCH}"),
    "a large WebP": (_LARGE_WEBP, f"a WebP of 68,890,000 pixels, which are 262 MiB while it is decoded; {_TOO_MUCH}"),
    "a large Netpbm": (b"P6 6700 6700 65535\n", "a Netpbm of 44,890,000 pixels, which are 256 MiB"),
    "a large GIF": (_GIF[:6] + b"\xff\x3f" * 2 + _GIF[10:], "a GIF of 268,402,689 pixels, which are 1023 MiB"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_before_it_takes_time_or_memory(kind: str) -> None:
    content, text = REFUSED[kind]
    began = time.process_time()
    with pytest.raises(ImageError) as caught:
        decode(content, max_pixels=1 << 30)
    assert text in str(caught.value)
    assert time.process_time() - began < 1


def test_a_long_header_of_netpbm_is_read_up_to_the_limit() -> None:
    assert decode(b"P6 #" + b"." * 60_000 + b"\n1 1 255\n123").shape == (1, 1, 3)


@pytest.mark.parametrize("place", ["header", "middle of the scan", "end of the scan"])
def test_fill_bytes_of_a_jpeg_take_no_time(place: str) -> None:
    """Pillow hands libjpeg its file in pieces, and libjpeg steps through them anew with each."""
    sound, fill = encoded(Image.fromarray(noise(64, 64)), "JPEG"), b"\xff" * (40 << 20)
    stuffed = sound.index(b"\xff\x00", sound.index(b"\xff\xda"))
    at = {"header": 2, "middle of the scan": stuffed, "end of the scan": len(sound) - 2}[place]
    began = time.process_time()
    found = decode(sound[:at] + fill + sound[at:])
    assert time.process_time() - began < 3
    np.testing.assert_array_equal(found, decode(sound))
