"""Decode and resize, byte for byte: against a numpy twin of the resize, and against pictures built by hand."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from samdeploy.errors import ImageError
from samdeploy.preprocess import decode, image_files, prepare, resize
from samdeploy.spec import Preprocessing

UInt8Array = NDArray[np.uint8]

BITS = 22  # of the fixed-point weights: 32 minus 8 for the pixel minus 2 for the sum


# --- the numpy twin of the resize -------------------------------------------------------------------------------------


def twin_weights(length: int, target: int) -> NDArray[np.float64]:
    """The triangle filter as whole numbers, float64 [target, length]; a row sums to about 2**22."""
    scale = length / target
    support = max(scale, 1.0)
    centre = (np.arange(target)[:, None] + 0.5) * scale
    pixel = np.arange(length)
    inside = (pixel >= np.trunc(centre - support + 0.5)) & (pixel < np.trunc(centre + support + 0.5))
    triangle = np.where(inside, np.maximum(0.0, 1.0 - np.abs(pixel - centre + 0.5) * (1 / support)), 0.0)
    total = np.cumsum(triangle, axis=1)[:, -1:]  # one after another: numpy's sum adds in pairs and rounds differently
    return np.floor(triangle / total * (1 << BITS) + 0.5)


def twin_pass(image: UInt8Array, target: int) -> UInt8Array:
    """Resize axis 0 of uint8 [h, w, 3]."""
    if target == len(image):
        return image
    # Whole numbers below 2**53: float64 adds them exactly, and BLAS is fast.
    flat = twin_weights(len(image), target) @ image.reshape(len(image), -1).astype(np.float64)
    rounded = (flat.astype(np.int64) + (1 << (BITS - 1))) >> BITS
    return np.clip(rounded, 0, 255).astype(np.uint8).reshape(target, *image.shape[1:])


def twin_resize(image: UInt8Array, height: int, width: int) -> UInt8Array:
    """Vertical first, rounded to uint8, then horizontal."""
    vertical = twin_pass(image, height)
    return np.ascontiguousarray(twin_pass(vertical.transpose(1, 0, 2), width).transpose(1, 0, 2))


def noise(height: int, width: int, seed: int = 0) -> UInt8Array:
    """The hardest picture for a rounding: half of it noise, half of it 0 and 255."""
    generator = np.random.default_rng((seed, height, width))
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[: height // 2] = np.where(image[: height // 2] < 128, 0, 255)
    return image


def random_sizes() -> list[tuple[int, int, int, int]]:
    generator = np.random.default_rng(22)
    sizes = [tuple(int(side) for side in generator.integers(1, 301, 4)) for _ in range(120)]
    small = [tuple(int(side) for side in generator.integers(1, 9, 4)) for _ in range(60)]
    edges = [(1, 1, 1, 1), (1, 1, 7, 5), (300, 300, 1, 1), (1, 300, 300, 1), (8, 8, 32, 32), (299, 2, 2, 299)]
    return [*sizes, *small, *edges]  # type: ignore[list-item]


def test_resize_equals_the_twin_byte_for_byte() -> None:
    different = [
        (height, width, target_height, target_width)
        for height, width, target_height, target_width in random_sizes()
        if not np.array_equal(
            resize(noise(height, width), Preprocessing(target_height, target_width)),
            twin_resize(noise(height, width), target_height, target_width),
        )
    ]
    assert different == []


def test_the_twin_knows_the_order_of_the_passes() -> None:
    """Else the test above would accept a resize that goes horizontal first."""
    image = noise(61, 47)
    swapped = twin_resize(image.transpose(1, 0, 2), 33, 29).transpose(1, 0, 2)
    assert not np.array_equal(swapped, twin_resize(image, 29, 33))


def test_two_pixels_to_four_by_hand() -> None:
    """0 and 200 at distances 1/4 and 3/4: 0, 50, 150, 200."""
    row = np.array([[[0] * 3, [200] * 3]], dtype=np.uint8)
    expected = [0, 50, 150, 200]
    assert resize(row, Preprocessing(1, 4))[0, :, 0].tolist() == expected
    assert resize(row.transpose(1, 0, 2), Preprocessing(4, 1))[:, 0, 0].tolist() == expected


@pytest.mark.parametrize(
    ("height", "width", "short", "crop", "scaled"),
    [
        (50, 80, 40, (32, 32), (40, 64)),
        (80, 50, 40, (32, 32), (64, 40)),
        (31, 31, 40, (40, 40), (40, 40)),
        (37, 53, 29, (28, 28), (29, 41)),  # 29 * 53 / 37 = 41.5, rounded down, and so are odd margins: 0 of 1, 6 of 13
        (53, 37, 29, (28, 28), (41, 29)),
        (1, 9, 8, (8, 8), (8, 72)),
    ],
)
def test_center_crop(height: int, width: int, short: int, crop: tuple[int, int], scaled: tuple[int, int]) -> None:
    image = noise(height, width)
    whole = twin_resize(image, *scaled)
    top, left = (scaled[0] - crop[0]) // 2, (scaled[1] - crop[1]) // 2
    found = resize(image, Preprocessing(*crop, fit="center_crop", resize_short=short))
    assert np.array_equal(found, whole[top : top + crop[0], left : left + crop[1]])
    assert found.flags.c_contiguous


def test_resize_to_the_same_size_gives_a_copy() -> None:
    image = noise(9, 7)
    found = resize(image, Preprocessing(9, 7))
    assert np.array_equal(found, image)
    assert not np.shares_memory(found, image)


@pytest.mark.parametrize(
    ("shape", "preprocessing"),
    [
        ((1, 1_000_000, 3), Preprocessing(224, 224)),
        ((60_000, 1, 3), Preprocessing(224, 224, "center_crop", 256)),
    ],
)
def test_a_thread_of_pixels_does_not_fill_the_memory(
    shape: tuple[int, ...], preprocessing: Preprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("must be refused before Pillow reserves memory")

    monkeypatch.setattr(Image.Image, "resize", refuse)
    thread = np.zeros(shape, dtype=np.uint8)
    with pytest.raises(ImageError, match=r"too long and thin to be brought to \d+x\d+; cut the picture first"):
        resize(thread, preprocessing)


def test_a_panorama_is_not_a_thread() -> None:
    assert resize(np.zeros((100, 30_000, 3), np.uint8), Preprocessing(64, 64)).shape == (64, 64, 3)


def test_prepare_names_the_file_that_is_too_thin(tmp_path: Path) -> None:
    path = tmp_path / "thread.png"
    path.write_bytes(png(1_000_000, 1, 1, 0, [bytes(125_000)]))
    with pytest.raises(ImageError, match=r"thread\.png: 1000000x1 pixels \(width x height\) are too long and thin"):
        prepare(path, Preprocessing(224, 224))


# --- pictures built by hand -------------------------------------------------------------------------------------------


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, colour: int, rows: list[bytes], *extra: bytes) -> bytes:
    """A PNG of unfiltered rows; `colour` 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGBA."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def grey(*values: int) -> list[list[list[int]]]:
    """One row of grey pixels as `decode(...).tolist()` gives it."""
    return [[[value] * 3 for value in values]]


def over_white(value: int, alpha: int) -> int:
    """Rounded to the nearest whole number, in exact integers; 255 is odd, so there are no ties."""
    return (2 * (value * alpha + 255 * (255 - alpha)) + 255) // (2 * 255)


UPRIGHT = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 13  # no symmetry at all

# How a camera stores the upright picture under each orientation (EXIF 2.32, 4.6.4: where row 0 and column 0 lie).
STORED: dict[int, Callable[[UInt8Array], UInt8Array]] = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: image.transpose(1, 0, 2)[::-1],
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: image.transpose(1, 0, 2)[:, ::-1],
}


def with_orientation(orientation: object, image: UInt8Array, kind: str = "PNG", **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(np.ascontiguousarray(image)), kind, exif=exif, **options)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation(orientation: int, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    stored = with_orientation(orientation, STORED[orientation](UPRIGHT), kind, **options)
    assert decode(stored).tolist() == UPRIGHT.tolist()


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_of_a_jpeg(orientation: int) -> None:
    """A JPEG is not exact: blocks of 16 pixels in four greys come close enough to tell all orientations apart."""
    greys = np.array([[0, 80], [160, 240]], dtype=np.uint8)
    blocks = np.repeat(np.repeat(np.repeat(greys, 16, 0), 16, 1)[:, :, None], 3, 2)
    found = decode(with_orientation(orientation, STORED[orientation](blocks), "JPEG", quality=95))
    assert np.abs(found.astype(int) - blocks).max() <= 3


def test_16_bit_grey_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = png(2, 1, 16, 0, [b"\x12\x34\xff\x00"], chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    assert decode(stored).tolist() == [[[0x12] * 3], [[0xFF] * 3]]


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_changes_nothing(orientation: int) -> None:
    assert decode(with_orientation(orientation, UPRIGHT)).tolist() == UPRIGHT.tolist()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(
    "block",
    [
        b"II*\0\x08\0\0\0\xff\xff",  # promises 65,535 entries, holds none
        b"no TIFF header at all",
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\0x\0\0\0\0\0\0\0",  # an orientation that is a text
        b"",
    ],
)
def test_a_damaged_exif_block_does_not_spoil_a_sound_picture(block: bytes) -> None:
    pixels = [row.tobytes() for row in UPRIGHT]
    assert decode(png(3, 2, 8, 2, pixels, chunk(b"eXIf", block))).tolist() == UPRIGHT.tolist()


def test_the_exif_block_is_never_written_anew() -> None:
    """A field of an unusual type, which Pillow reads but cannot write; the picture is sound and must be turned."""
    entries = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack(
        "<HHII", 0x0106, 2, 4, int.from_bytes(b"abc\0", "little")
    )
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + b"\0\0\0\0"
    stored = np.ascontiguousarray(STORED[6](UPRIGHT))
    data = png(2, 3, 8, 2, [row.tobytes() for row in stored], chunk(b"eXIf", block))
    with Image.open(io.BytesIO(data)) as picture, pytest.raises(struct.error):
        picture.getexif().tobytes()  # the reason for this test; without it ImageOps.exif_transpose would do
    assert decode(data).tolist() == UPRIGHT.tolist()


# --- every way to store pixels ----------------------------------------------------------------------------------------

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
    picture = Image.fromarray(np.stack(channels, -1).astype(np.uint8))
    assert picture.mode == mode
    expected = np.vectorize(over_white)(colour, alpha)
    found = decode(encoded(picture, "PNG"))
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
    picture = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    found = decode(encoded(picture, "JPEG", quality=100)).astype(int)
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
    picture = Image.new("P", (2, 1))
    picture.putpalette([9, 8, 7, 1, 2, 3])
    picture.putdata([0, 1])
    assert decode(encoded(picture, "GIF", transparency=1)).tolist() == [[[9, 8, 7], [255, 255, 255]]]


def test_a_jpeg_of_many_pictures_gives_the_first() -> None:
    first, second = Image.new("RGB", (16, 16), (0, 0, 0)), Image.new("RGB", (16, 16), (255, 255, 255))
    assert decode(encoded(first, "MPO", save_all=True, append_images=[second])).max() == 0


# --- sources ----------------------------------------------------------------------------------------------------------


def test_path_text_bytes_and_pillow_image_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "Bild mit Umlaut ä.png"
    Image.fromarray(UPRIGHT).save(path)
    for source in (path, str(path), path.read_bytes(), Image.open(path), Image.fromarray(UPRIGHT), UPRIGHT):
        assert decode(source).tolist() == UPRIGHT.tolist()


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "LA", "La", "RGBa", "PA", "CMYK", "YCbCr", "HSV", "I;16"]
)
def test_every_mode_of_a_pillow_image(mode: str) -> None:
    found = decode(Image.new(mode, (3, 2)))
    assert (found.shape, found.dtype) == ((2, 3, 3), np.uint8)


def test_grey_array_becomes_three_channels() -> None:
    assert decode(np.array([[1, 2]], dtype=np.uint8)).tolist() == grey(1, 2)


def test_an_array_may_be_a_view() -> None:
    found = decode(UPRIGHT[::-1, :, ::-1])
    assert found.tolist() == UPRIGHT[::-1, :, ::-1].tolist()
    assert found.flags.c_contiguous


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.zeros((2, 2, 3), np.float32), "dtype float32 found, uint8 expected (0..255, not 0..1)"),
        (np.zeros((2, 2, 3), np.int64), "dtype int64 found, uint8 expected"),
        (np.zeros((2, 2), bool), "dtype bool found, uint8 expected"),
        (np.zeros((2, 2, 4), np.uint8), "shape [2, 2, 4] found, [height, width, 3] RGB expected"),
        (np.zeros((3, 2, 2), np.uint8), "shape [3, 2, 2] found"),
        (np.zeros((1, 2, 2, 3), np.uint8), "shape [1, 2, 2, 3] found"),
        (np.zeros(3, np.uint8), "shape [3] found"),
        (np.zeros((0, 2, 3), np.uint8), "shape [0, 2, 3] found"),
        (np.zeros((2, 0), np.uint8), "shape [2, 0, 3] found"),
    ],
)
def test_arrays_of_wrong_type_or_shape(array: UInt8Array, text: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(array)
    assert str(caught.value).startswith(f"image array: {text}")


@pytest.mark.parametrize(("source", "kind"), [(None, "NoneType"), (3, "int"), (bytearray(b"x"), "bytearray")])
def test_other_sources_are_named(source: object, kind: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(source)  # type: ignore[arg-type]
    assert str(caught.value) == f"image: {kind} found; expected a path, bytes, a Pillow image or a uint8 array"


# --- what is refused --------------------------------------------------------------------------------------------------

SOUND_JPEG = encoded(Image.fromarray(noise(64, 64)), "JPEG")
SOUND_PNG = encoded(Image.fromarray(noise(64, 64)), "PNG")

REFUSED = {
    "text.jpg": (b"This is no picture.", "not a picture, or of a kind that Pillow cannot read"),
    "empty.png": (b"", "the file is empty; expected a picture"),
    "half.jpg": (SOUND_JPEG[: len(SOUND_JPEG) // 2], "damaged or truncated (image file is truncated"),
    "half.png": (SOUND_PNG[: len(SOUND_PNG) // 2], "damaged or truncated ("),
    "changed.png": (SOUND_PNG[:60] + b"!" + SOUND_PNG[61:], "damaged or truncated ("),
    "floats.tif": (encoded(Image.new("F", (2, 2)), "TIFF"), "holds floating-point numbers; expected 8 or 16 bits"),
    "integers.tif": (encoded(Image.new("I", (2, 2)), "TIFF"), "holds 32-bit integers; expected 8 or 16 bits"),
    "floats.pfm": (b"Pf 1 1 -1.0\n" + struct.pack("<f", 0.5), "holds floating-point numbers"),
    "bomb.png": (
        png(60_000, 60_000, 8, 2, []),
        "too many pixels, scale it down first (60000x60000 are 3,600,000,000, ",
    ),
    "drawing.eps": (
        encoded(Image.new("RGB", (2, 2)), "EPS"),
        "is EPS, a program that draws; expected pixels, convert it first",
    ),
    # The sound pixels of a DDS with an unknown format raise NotImplementedError in Pillow.
    "odd.dds": (b"DDS " + struct.pack("<31I", 124, 0x1007, 1, 1, *[0] * 14, 32, *[0] * 12), "damaged or truncated ("),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_name_and_the_reason(name: str, tmp_path: Path) -> None:
    data, text = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(data)
    for source, shown in ((path, str(path)), (data, "image")):
        with pytest.raises(ImageError) as caught:
            decode(source)
        assert str(caught.value).startswith(f"{shown}: {text}")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"])
def test_the_limit_on_pixels_is_an_argument(kind: str, tmp_path: Path) -> None:
    picture = Image.fromarray(noise(20, 30))
    path = tmp_path / f"picture.{kind.lower()}"
    picture.save(path, kind)
    expected = decode(path)
    text = "too many pixels, scale it down first (30x20 are 600, at most 599 are decoded; max_pixels sets the limit)"
    for source, shown in ((path, str(path)), (path.read_bytes(), "image"), (picture, "image")):
        decode(source, max_pixels=600)
        with pytest.raises(ImageError) as caught:
            decode(source, max_pixels=599)
        assert str(caught.value) == f"{shown}: {text}"
        with pytest.raises(ImageError, match="at most 599"):
            prepare(source, Preprocessing(4, 4), max_pixels=599)
    assert expected.shape == (20, 30, 3)


@pytest.mark.parametrize("limit", [299, 300, 599, None])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "PPM"])
@pytest.mark.filterwarnings("error")
def test_pillows_own_limit_has_no_say(
    kind: str, limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It warns above its variable and refuses above twice of it, for the whole process; here warnings are errors."""
    path = tmp_path / f"picture.{kind.lower()}"
    Image.fromarray(noise(20, 30)).save(path, kind)
    expected = decode(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    for source in (path, str(path), path.read_bytes()):
        np.testing.assert_array_equal(decode(source), expected)
        with pytest.raises(ImageError, match="too many pixels"):
            decode(source, max_pixels=599)
    assert limit == Image.MAX_IMAGE_PIXELS
    if limit is not None:
        path.write_bytes(path.read_bytes()[:-120])
        with pytest.raises(ImageError, match="damaged or truncated"):
            decode(path)


def test_eps_never_starts_an_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", started)
    data = encoded(Image.new("RGB", (2, 2)), "EPS")
    for source in (data, Image.open(io.BytesIO(data))):
        with pytest.raises(ImageError, match="is EPS"):
            decode(source)


def test_missing_folder_and_unreadable(tmp_path: Path) -> None:
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    for path, text in (
        (tmp_path / "missing.png", "no such file"),
        (tmp_path, "is a folder, a picture was expected"),
        (loop, "cannot be read (Too many levels of symbolic links)"),
        (tmp_path / ("x" * 300), "cannot be read (File name too long)"),
    ):
        with pytest.raises(ImageError) as caught:
            decode(path)
        assert str(caught.value) == f"{path}: {text}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(SOUND_PNG)
    path.chmod(0)
    with pytest.raises(ImageError, match=r"may not be read \(permission denied\)"):
        decode(path)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_bytes_raise_nothing_but_our_own_error() -> None:
    """Pillow reports damage through OSError, SyntaxError, struct.error and more; 1,000 damaged files, 5 formats."""
    generator = np.random.default_rng(5)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "text"
    picture = Image.fromarray(noise(11, 13))
    sound = [encoded(picture, kind, exif=exif) for kind in ("JPEG", "PNG", "WEBP")]
    sound += [encoded(picture, kind) for kind in ("GIF", "TIFF")]
    refused = 0
    for round_number in range(1000):
        data = bytearray(sound[round_number % len(sound)])
        reach = min(len(data), 200)
        for position in generator.integers(0, reach, 3):
            data[position] = generator.choice([0, 1, 255])
        try:
            decode(bytes(data))
        except ImageError:
            refused += 1
    assert 100 < refused < 1000  # else the damage was none, or too much to reach the decoders


@pytest.mark.parametrize(
    "error",
    [
        *(OSError("x"), SyntaxError("x"), ValueError("x"), EOFError("x"), IndexError("x"), KeyError("x")),
        *(TypeError("x"), NotImplementedError("x"), ZeroDivisionError("x"), OverflowError("x"), struct.error("x")),
    ],
    ids=repr,
)
def test_every_way_in_which_a_decoder_reports_damage(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise error

    picture = Image.new("RGB", (2, 2))
    monkeypatch.setattr(picture, "load", fail)
    with pytest.raises(ImageError) as caught:
        decode(picture)
    assert str(caught.value) == f"image: damaged or truncated ({error}); expected a complete picture"


# --- folders ----------------------------------------------------------------------------------------------------------


def test_image_files(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/z.png", "a/notes.txt", "c.tiff", "d.png/inside.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path)]
    assert found == ["a/z.png", "b.JPG", "c.tiff", "d.png/inside.webp"]


def test_prepare_is_decode_and_resize() -> None:
    data = encoded(Image.fromarray(noise(40, 50)), "PNG")
    assert np.array_equal(prepare(data, Preprocessing(12, 10)), twin_resize(noise(40, 50), 12, 10))
