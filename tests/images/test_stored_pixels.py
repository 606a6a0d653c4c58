"""Every way to store pixels: depths, colours, palettes, transparency, frames."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from samdeploy.errors import ImageError
from samdeploy.images.decode import decode
from tests.images.image_files import chunk, encoded, grey, over_white, png

PALETTE = chunk(b"PLTE", bytes([10, 20, 30, 40, 50, 60, 70, 80, 90]))

EXACT = {
    "grey, 8 bits": (png(3, 1, 8, 0, [bytes([0, 7, 255])]), grey(0, 7, 255)),
    "grey, 1 bit": (png(4, 1, 1, 0, [bytes([0b10100000])]), grey(255, 0, 255, 0)),
    "grey, 2 bits": (png(4, 1, 2, 0, [bytes([0b00011011])]), grey(0, 85, 170, 255)),
    "grey, 4 bits": (png(2, 1, 4, 0, [bytes([0x3F])]), grey(51, 255)),
    # The high byte: not the rounded value (0x12FF would be 19) and not clipped to 255.
    "grey, 16 bits": (png(3, 1, 16, 0, [bytes.fromhex("12ff 00ff ffff")]), grey(0x12, 0, 255)),
    "RGB, 16 bits": (png(1, 1, 16, 2, [bytes.fromhex("12ff 80ff ff00")]), [[[0x12, 0x80, 0xFF]]]),
    "RGB, 8 bits": (png(1, 1, 8, 2, [bytes([1, 2, 3])]), [[[1, 2, 3]]]),
    "palette": (png(3, 1, 8, 3, [bytes([2, 0, 1])], PALETTE), [[[70, 80, 90], [10, 20, 30], [40, 50, 60]]]),
    "palette with transparency": (
        png(3, 1, 8, 3, [bytes([0, 1, 2])], PALETTE, chunk(b"tRNS", bytes([0, 128]))),
        [[[255] * 3, [over_white(value, 128) for value in (40, 50, 60)], [70, 80, 90]]],
    ),
    "grey with a transparent value": (
        png(2, 1, 8, 0, [bytes([3, 9])], chunk(b"tRNS", b"\0\3")),
        grey(255, 9),
    ),
    "black as the transparent value of 1 bit": (
        png(2, 1, 1, 0, [bytes([0b01000000])], chunk(b"tRNS", b"\0\0")),
        grey(255, 255),
    ),
    "RGB with a transparent colour": (
        png(2, 1, 8, 2, [bytes([1, 2, 3, 1, 2, 4])], chunk(b"tRNS", bytes([0, 1, 0, 2, 0, 3]))),
        [[[255, 255, 255], [1, 2, 4]]],
    ),
    "grey and alpha, 16 bits": (png(1, 1, 16, 4, [bytes.fromhex("12ff 80ff")]), grey(over_white(0x12, 0x80))),
    "RGBA, 16 bits": (
        png(1, 1, 16, 6, [bytes.fromhex("12ff 80ff ffff 7f00")]),
        [[[over_white(value, 0x7F) for value in (0x12, 0x80, 0xFF)]]],
    ),
    "Netpbm grey, 16 bits": (b"P5 2 1 65535\n" + bytes.fromhex("12ff ffff"), grey(0x12, 0xFF)),
    "Netpbm grey, 8 bits": (b"P5 2 1 255\n" + bytes([5, 6]), grey(5, 6)),
    "TIFF grey, 16 bits": (encoded(Image.fromarray(np.array([[0x12FF, 0xFF00]], "<u2")), "TIFF"), grey(0x12, 0xFF)),
}


@pytest.mark.parametrize("name", EXACT)
def test_stored_pixels_are_decoded_exactly(name: str) -> None:
    data, expected = EXACT[name]
    found = decode(data)
    assert found.tolist() == expected
    assert (found.dtype, found.ndim, found.shape[2]) == (np.uint8, 3, 3)


def test_big_endian_tiff_of_16_bits() -> None:
    entries = [(256, 3, 2), (257, 3, 1), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 3, 1), (279, 4, 4)]
    table = b"".join(
        struct.pack(">HHI", tag, kind, 1) + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
        for tag, kind, value in entries
    )
    data = b"MM\0*" + struct.pack(">I", 12) + bytes.fromhex("12ff fe01") + struct.pack(">H", 8) + table + bytes(4)
    assert decode(data).tolist() == grey(0x12, 0xFE)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_every_colour_with_every_alpha_over_white(mode: str) -> None:
    colour, alpha = np.meshgrid(np.arange(256), np.arange(256))
    channels = [colour] * (3 if mode == "RGBA" else 1) + [alpha]
    image = Image.fromarray(np.stack(channels, -1).astype(np.uint8))
    assert image.mode == mode
    expected = np.vectorize(over_white)(colour, alpha)
    found = decode(encoded(image, "PNG"))
    assert all(np.array_equal(found[:, :, channel], expected) for channel in range(3))


@pytest.mark.parametrize(
    ("depth", "colour", "row"), [(2, 0, b"\x1b"), (4, 0, b"\x3f"), (16, 0, b"1234"), (16, 2, b"123456")]
)
def test_a_transparent_colour_that_pillow_loses_is_refused(depth: int, colour: int, row: bytes) -> None:
    """Pillow compares the colour as stored (1 of 0..3) with the pixel as unpacked (85): transparent stays black."""
    key = chunk(b"tRNS", bytes(2 if colour == 0 else 6))
    with pytest.raises(
        ImageError, match=r"^image: has a transparent colour beside 2, 4 or 16 bits per channel; convert"
    ):
        decode(png(1, 1, depth, colour, [row], key))


def test_cmyk_jpeg() -> None:
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    found = decode(encoded(image, "JPEG", quality=100)).astype(int)
    assert np.abs(found - [0, 255, 255]).max() <= 2  # cyan; inverted, as Adobe stores it, it would be red


def test_cmyk_is_converted_in_exact_integers() -> None:
    cmyk = Image.frombytes("CMYK", (1, 1), bytes([10, 100, 200, 50]))
    # white of the key (205) less the share of the ink: 205 - round(10 * 205 / 255), and so on
    assert decode(encoded(cmyk, "TIFF")).tolist() == [[[205 - 8, 205 - 80, 205 - 161]]]


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (4, 2), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    for kind in ("GIF", "PNG"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert np.array_equal(decode(data), np.asarray(frames[0])), kind


def test_transparent_gif_over_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([9, 8, 7, 1, 2, 3])
    image.putdata([0, 1])
    assert decode(encoded(image, "GIF", transparency=1)).tolist() == [[[9, 8, 7], [255, 255, 255]]]


def test_a_jpeg_of_many_images_gives_the_first() -> None:
    first, second = Image.new("RGB", (16, 16), (0, 0, 0)), Image.new("RGB", (16, 16), (255, 255, 255))
    assert decode(encoded(first, "MPO", save_all=True, append_images=[second])).max() == 0
