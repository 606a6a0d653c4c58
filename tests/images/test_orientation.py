"""Every EXIF orientation is turned upright; a damaged block spoils no sound image."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from samdeploy.images.decode import decode
from tests.images.image_files import UPRIGHT, UInt8Array, chunk, encoded, png

# How a camera stores the upright image under each orientation (EXIF 2.32, 4.6.4: where row 0 and column 0 lie).
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
def test_a_damaged_exif_block_does_not_spoil_a_sound_image(block: bytes) -> None:
    pixels = [row.tobytes() for row in UPRIGHT]
    assert decode(png(3, 2, 8, 2, pixels, chunk(b"eXIf", block))).tolist() == UPRIGHT.tolist()


def test_the_exif_block_is_never_written_anew() -> None:
    """A field of an unusual type, which Pillow reads but cannot write; the image is sound and must be turned."""
    entries = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack(
        "<HHII", 0x0106, 2, 4, int.from_bytes(b"abc\0", "little")
    )
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + b"\0\0\0\0"
    stored = np.ascontiguousarray(STORED[6](UPRIGHT))
    data = png(2, 3, 8, 2, [row.tobytes() for row in stored], chunk(b"eXIf", block))
    with Image.open(io.BytesIO(data)) as image, pytest.raises(struct.error):
        image.getexif().tobytes()  # the reason for this test; without it ImageOps.exif_transpose would do
    assert decode(data).tolist() == UPRIGHT.tolist()
