"""A JPEG is taken whole or not at all: its markers lead to EOI, over few enough scans."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from samdeploy.errors import ImageError
from samdeploy.images.decode import decode
from tests.images.image_files import encoded, noise

SMOOTH = Image.fromarray(noise(6, 8)).resize((160, 120), Image.Resampling.BICUBIC)
KINDS = {
    "baseline": encoded(SMOOTH, "JPEG", quality=95),
    "progressive": encoded(SMOOTH, "JPEG", quality=95, progressive=True),
    "restarts": encoded(SMOOTH, "JPEG", quality=95, restart_marker_blocks=2),
    "grey": encoded(SMOOTH.convert("L"), "JPEG"),
    "CMYK": encoded(SMOOTH.convert("CMYK"), "JPEG"),
}


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("percent", [10, 50, 90, 99])
def test_a_tail_that_is_missing_or_zero(kind: str, percent: int) -> None:
    whole = KINDS[kind]
    cut = len(whole) * percent // 100
    for broken in (whole[:cut], whole[:cut] + bytes(len(whole) - cut), whole[:-2], whole[:-1]):
        with pytest.raises(ImageError, match="JPEG: the file ends"):
            decode(broken)


@pytest.mark.parametrize("kind", KINDS)
def test_what_follows_the_end_is_not_looked_at(kind: str) -> None:
    expected = decode(KINDS[kind])
    for tail in (bytes(1000), KINDS["grey"], b"\xff" * 9, b"\xff\xd8\xff"):
        assert np.array_equal(decode(KINDS[kind] + tail), expected)


def test_metadata_decides_about_metadata_only() -> None:
    """A preview with an EOI of its own, a profile, a comment and an Adobe block that is none; fill bytes."""
    whole = KINDS["baseline"]
    preview = encoded(SMOOTH.resize((16, 12)), "JPEG")
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0" + preview
    extra = segment(0xE1, exif) + segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(60_000)) + segment(0xFE, b"comment")
    found = decode(whole[:2] + extra + segment(0xED, b"Photoshop 3.0\0damaged") + b"\xff\xff" + whole[2:])
    assert np.array_equal(found, np.rot90(decode(whole), -1))
    many = segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 900
    assert np.array_equal(decode(whole[:2] + many + whole[2:]), decode(whole))  # 58 MB, too long for an EXIF block


def test_scans_are_limited() -> None:
    whole = KINDS["progressive"]
    last = whole.rindex(b"\xff\xda")
    own = whole.count(b"\xff\xda")
    repeated = whole[last:-2]
    decode(whole[:-2] + repeated * (100 - own) + whole[-2:])
    with pytest.raises(
        ImageError, match="is a JPEG of more than 100 scans, too many for its 19,200 pixels; save it anew"
    ):
        decode(whole[:-2] + repeated * (101 - own) + whole[-2:])


def test_a_header_that_promises_what_the_file_cannot_hold() -> None:
    """Before memory is reserved: a block takes one bit at least."""
    whole = bytearray(KINDS["baseline"])
    at = whole.index(b"\xff\xc0") + 5
    whole[at : at + 4] = struct.pack(">HH", 13_000, 13_000)
    with pytest.raises(ImageError, match=r"JPEG: [\d,]+ bytes cannot hold [\d,]+ blocks"):
        decode(bytes(whole))
    progressive = bytearray(KINDS["progressive"])
    at = progressive.index(b"\xff\xc2") + 5
    progressive[at : at + 4] = struct.pack(">HH", 13_000, 13_000)
    with pytest.raises(
        ImageError, match="decoding a JPEG that is progressive, or of several scans, of this size takes"
    ):
        decode(bytes(progressive))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda whole: whole.replace(b"\xff\xc0", b"\xff\xc3", 1), "is a JPEG of process SOF3 with 8 bits"),
        (lambda whole: whole.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c", 1), "SOF1 with 12 bits"),
        (lambda whole: whole[:2] + whole[-2:], "JPEG: no scan"),
        (
            lambda whole: whole[: whole.index(b"\xff\xc0")] + whole[whole.index(b"\xff\xda") :],
            "a scan before the frame",
        ),
        (lambda whole: whole[:2] + b"\xff\x02\0\2" + whole[2:], "JPEG: unknown marker 02"),
        (lambda whole: whole[:2] + b"\xff\xc4\0\2" * 65_536 + whole[2:], "JPEG: more than 65,536 markers"),
    ],
    ids=["lossless", "12 bits", "no scan", "no frame", "unknown marker", "markers"],
)
def test_other_damage_is_named(change, text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ImageError, match=text):
        decode(change(KINDS["baseline"]))
