"""Every kind of TIFF pixels that is read comes out as it is stored; every other kind is refused by name."""

from __future__ import annotations

import io
import itertools
import struct

import numpy as np
import pytest
from PIL import Image

from samdeploy.errors import ImageError
from samdeploy.images.decode import decode
from tests.images.image_files import encoded, grey, noise, over_white
from tests.images.tiffs import tiff

RAMP = [0x12FF, 0x00FF, 0xFFFF, 0x8000]
PALETTE = [value * 257 for channel in range(3) for value in (np.arange(256) * (channel + 1) % 256).tolist()]


def shorts(values: list[int], order: str = "<") -> bytes:
    return struct.pack(f"{order}{len(values)}H", *values)


EXACT = {
    "1 bit": (tiff([b"\xa0"], (4, 1), [1], 1), grey(255, 0, 255, 0)),
    "1 bit, white is zero": (tiff([b"\xa0"], (4, 1), [1], 0), grey(0, 255, 0, 255)),
    "2 bits": (tiff([b"\x1b"], (4, 1), [2], 1), grey(0, 85, 170, 255)),
    "2 bits, white is zero": (tiff([b"\x1b"], (4, 1), [2], 0), grey(255, 170, 85, 0)),
    "4 bits": (tiff([b"\x3f"], (2, 1), [4], 1), grey(51, 255)),
    "4 bits, white is zero": (tiff([b"\x3f"], (2, 1), [4], 0), grey(204, 0)),
    "8 bits": (tiff([b"\x07\xff"], (2, 1), [8], 1), grey(7, 255)),
    "8 bits, white is zero": (tiff([b"\x07\xff"], (2, 1), [8], 0), grey(248, 0)),
    "8 bits, fill order 2": (tiff([b"\x80\x01"], (2, 1), [8], 1, t266=2), grey(1, 128)),
    "12 bits, odd rows": (
        tiff([bytes.fromhex("123fff8000 000010fff0")], (3, 2), [12], 1),
        [grey(0x12, 255, 128)[0], grey(0, 1, 255)[0]],
    ),
    "12 bits, white is zero, big-endian": (tiff([bytes.fromhex("000fff")], (2, 1), [12], 0, order=">"), grey(255, 0)),
    **{
        f"16 bits{name}, order {order}": (tiff([shorts(RAMP, order)], (4, 1), [16], photometric, order=order), expected)
        for order in "<>"
        for photometric, name, expected in (
            (1, "", grey(0x12, 0, 255, 0x80)),
            (0, ", white is zero", grey(0xED, 0xFF, 0, 0x7F)),
        )
    },
    "16 bits, BigTIFF": (tiff([shorts(RAMP)], (4, 1), [16], 1, big=True), grey(0x12, 0, 255, 0x80)),
    "grey and alpha": (tiff([b"\x10\x80"], (1, 1), [8, 8], 1, t338=2), grey(over_white(0x10, 0x80))),
    "grey and associated alpha": (tiff([b"\x00\x80"], (1, 1), [8, 8], 1, t338=1), grey(over_white(0, 0x80))),
    "grey and a spare sample": (tiff([b"\x10\x00"], (1, 1), [8, 8], 1, t338=0), grey(0x10)),
    "RGB": (tiff([b"\1\2\3\4\5\6"], (2, 1), [8] * 3, 2), [[[1, 2, 3], [4, 5, 6]]]),
    "RGB in planes": (tiff([b"\1\4", b"\2\5", b"\3\6"], (2, 1), [8] * 3, 2, t284=2), [[[1, 2, 3], [4, 5, 6]]]),
    "RGB in rows": (tiff([b"\1\2\3", b"\4\5\6"], (1, 2), [8] * 3, 2, t278=1), [[[1, 2, 3]], [[4, 5, 6]]]),
    "RGB of 16 bits": (tiff([shorts([0x12FF, 0x80FF, 0xFF00])], (1, 1), [16] * 3, 2), [[[0x12, 0x80, 0xFF]]]),
    "RGB of 16 bits, big-endian": (
        tiff([shorts([0x12FF, 0x80FF, 0xFF00], ">")], (1, 1), [16] * 3, 2, order=">"),
        [[[0x12, 0x80, 0xFF]]],
    ),
    "RGBA": (tiff([b"\1\2\3\x80"], (1, 1), [8] * 4, 2, t338=2), [[[over_white(v, 0x80) for v in (1, 2, 3)]]]),
    "RGB and a spare sample": (tiff([b"\1\2\3\0"], (1, 1), [8] * 4, 2, t338=0), [[[1, 2, 3]]]),
    "RGBA of 16 bits": (
        tiff([shorts([0x12FF, 0x80FF, 0xFF00, 0x7FFF])], (1, 1), [16] * 4, 2, t338=2),
        [[[over_white(v, 0x7F) for v in (0x12, 0x80, 0xFF)]]],
    ),
    "palette of 8 bits": (tiff([b"\x07\xff"], (2, 1), [8], 3, t320=PALETTE), [[[7, 14, 21], [255, 254, 253]]]),
    "palette of 1 bit": (
        tiff([b"\x40"], (2, 1), [1], 3, t320=[0, 0xAA00, 0x1234, 0, 1, 0xFF00]),
        [[[0, 0x12, 0], [0xAA, 0, 0xFF]]],
    ),
    "CMYK": (tiff([bytes([10, 100, 200, 50])], (1, 1), [8] * 4, 5), [[[205 - 8, 205 - 80, 205 - 161]]]),
    "turned": (tiff([b"\1\2"], (2, 1), [8], 1, t274=6), [grey(1)[0], grey(2)[0]]),
}


@pytest.mark.parametrize("name", EXACT)
def test_samples_come_out_as_they_are_stored(name: str) -> None:
    data, expected = EXACT[name]
    assert decode(data).tolist() == expected


REFUSED = {
    "signed": (tiff([b"\x80\x7f"], (2, 1), [8], 1, t339=2), "BlackIsZero with 8 bits, signed samples"),
    "16 bits, signed": (tiff([shorts(RAMP)], (4, 1), [16], 1, t339=2), "BlackIsZero with 16 bits, signed samples"),
    "float": (tiff([struct.pack("<f", 0.5)], (1, 1), [32], 1, t339=3), "with 32 bits, floating-point samples"),
    "half float": (tiff([shorts(RAMP)], (4, 1), [16], 1, t339=3), "with 16 bits, floating-point samples"),
    "32 bits": (tiff([bytes(4)], (1, 1), [32], 1), "BlackIsZero with 32 bits, unsigned samples"),
    "10 bits": (tiff([bytes(5)], (4, 1), [10], 1), "BlackIsZero with 10 bits"),
    "planes of 16 bits": (tiff([shorts(RAMP)] * 3, (4, 1), [16] * 3, 2, t284=2), "16+16+16 bits, unsigned samples, s"),
    "planes with alpha": (tiff([b"\1"] * 4, (1, 1), [8] * 4, 2, t284=2, t338=2), "separate planes, extra samples [2]"),
    "four samples of no meaning": (tiff([bytes(4)], (1, 1), [8] * 4, 2), "RGB with 8+8+8+8 bits"),
    "five samples": (tiff([bytes(5)], (1, 1), [8] * 5, 2, t338=[0, 0]), "RGB with 8+8+8+8+8 bits"),
    "unequal bits": (tiff([bytes(2)], (1, 1), [5, 6, 5], 2), "RGB with 5+6+5 bits"),
    "YCbCr": (tiff([bytes(3)], (1, 1), [8] * 3, 6), "YCbCr with 8+8+8 bits"),
    "CIELab": (tiff([bytes(3)], (1, 1), [8] * 3, 8), "CIELab with 8+8+8 bits"),
    "inks": (tiff([bytes(4)], (1, 1), [8] * 4, 5, t332=2), "CMYK with 8+8+8+8 bits"),
    "CMYK of 16 bits": (tiff([bytes(8)], (1, 1), [16] * 4, 5), "CMYK with 16+16+16+16 bits"),
    "palette of 16 bits": (tiff([bytes(2)], (1, 1), [16], 3), "palette with 16 bits"),
    "a mask": (tiff([b"\0"], (1, 1), [1], 4), "mask with 1 bits"),
    "a sensor": (tiff([shorts(RAMP)], (4, 1), [16], 32803), "a sensor's raw colours with 16 bits"),
    "no photometric": (tiff([b"\0"], (1, 1), [8], 999), "photometric 999 with 8 bits"),
    "old JPEG": (tiff([b"\0"], (1, 1), [8], 1, t259=6), "compression 6"),
    "16 bits, fill order 2": (tiff([shorts(RAMP)], (4, 1), [16], 1, t266=2), "BlackIsZero with 16 bits"),
    "a thumbnail": (tiff([b"\0"], (1, 1), [8], 1, t254=1), "whose first page is a thumbnail"),
    "no strip": (tiff([], (1, 1), [8], 1, t273=[8], t279=[9999]), "strip or tile 0 is not complete"),
    "a short strip": (tiff([b"\0"], (2, 1), [8], 1), "strip or tile 0 is not complete"),
    "strips that lack": (tiff([b"\0\0"], (1, 2), [8], 1, t278=1), "1 of 2 strips or tiles"),
    "no palette": (tiff([b"\0"], (1, 1), [8], 3), "no palette"),
    "a giant tile": (tiff([b"\0"], (1, 1), [8], 1, t322=60000, t323=60000, t324=8, t325=1), "tiles of 60000x60000"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_to_be_right_is_refused_by_name(name: str) -> None:
    data, text = REFUSED[name]
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "compression"),
    [
        ("1", "group4"),
        *itertools.product(
            ["1", "L", "I;16", "RGB", "RGBA", "P", "CMYK"], ["tiff_lzw", "tiff_adobe_deflate", "packbits"]
        ),
    ],
)
def test_every_compression(mode: str, compression: str) -> None:
    image = Image.fromarray(noise(37, 50)).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    whole = encoded(image, "TIFF", compression=compression)
    assert np.array_equal(decode(whole), decode(image))
    at = struct.unpack_from("<I", whole, 4)[0]  # Pillow writes the tags behind the strips
    with pytest.raises(ImageError):
        decode(whole[: at // 2])


def test_big_endian_lzw_of_16_bits() -> None:
    grey16 = np.random.default_rng(0).integers(0, 65536, (20, 30)).astype(">u2")
    image = Image.frombytes("I;16B", (30, 20), grey16.tobytes())
    assert np.array_equal(decode(encoded(image, "TIFF", compression="tiff_lzw"))[:, :, 0], grey16 >> 8)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_within_tiff(mode: str) -> None:
    smooth = Image.fromarray(noise(3, 4)).resize((64, 48), Image.Resampling.BICUBIC).convert(mode)
    whole = encoded(smooth, "TIFF", compression="jpeg", quality=95)
    assert np.abs(decode(whole).astype(int) - decode(smooth)).mean() < 4
    cut = bytearray(whole)
    end = cut.rindex(b"\xff\xd9", 0, struct.unpack_from("<I", whole, 4)[0])  # behind it are the tables of the tags
    cut[end - 200 : end + 2] = bytes(202)
    with pytest.raises(ImageError, match="before EOI"):
        decode(bytes(cut))


def test_of_many_pages_the_first_counts() -> None:
    pages = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    assert np.array_equal(
        decode(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])), np.asarray(pages[0])
    )


def test_tags_that_overlap_take_no_memory() -> None:
    """65,535 tags, each of which claims the whole file as its value."""
    blob = bytes(1 << 20)
    entries = b"".join(struct.pack("<HHII", 40000 + i % 9999, 7, 1 << 20, 8) for i in range(65_535))
    data = b"II*\0" + struct.pack("<I", 8 + len(blob)) + blob + struct.pack("<H", 65_535) + entries + bytes(4)
    with pytest.raises(ImageError, match="photometric -1"):
        decode(io.BytesIO(data).getvalue())
