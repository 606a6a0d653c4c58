"""Every format that is read gives what is stored, whatever the program around it has switched on."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import GifImagePlugin, Image, ImageFile, PngImagePlugin

from samdeploy.errors import ImageError
from samdeploy.images.decode import decode
from tests.images.image_files import chunk, encoded, grey, noise, over_white
from tests.images.tiffs import tiff

IMAGE = noise(24, 40)
RED, GREEN = Image.new("RGB", (16, 8), "red"), Image.new("RGB", (16, 8), (0, 128, 0))


def bmp(bits: int, pixels: bytes, masks: tuple[int, ...] = (), size: tuple[int, int] = (1, 1)) -> bytes:
    """A V4 BMP with bit fields where there are masks."""
    header = struct.pack("<IiiHHIIiiII", 108, *size, 1, bits, 3 if masks else 0, len(pixels), 0, 0, 0, 0)
    header += struct.pack("<4I", *masks, *[0] * (4 - len(masks))) + bytes(52)
    return b"BM" + struct.pack("<IHHI", 14 + 108 + len(pixels), 0, 0, 14 + 108) + header + pixels


EXACT = {
    "P1": (b"P1\n# a comment\n3 1\n0 1\n0", grey(255, 0, 255)),
    "P1 without blanks": (b"P1 3 1\n010", grey(255, 0, 255)),
    "P2 up to 15": (b"P2 3 1 15\n0 5 15", grey(0, 85, 255)),
    "P3 up to 65535": (b"P3 1 1 65535\n4863 255 65535", [[[0x12, 0, 255]]]),
    "P4": (b"P4 3 2\n" + bytes([0b01000000, 0b10100000]), [grey(255, 0, 255)[0], grey(0, 255, 0)[0]]),
    "P5 up to 100": (b"P5 3 1 100\n" + bytes([0, 50, 100]), grey(0, 128, 255)),
    "P5 above its maximum": (b"P5 1 1 100\n\xc8", grey(255)),
    "P5 up to 4095": (b"P5 2 1 4095\n" + struct.pack(">2H", 2048, 4095), grey(0x80, 255)),
    "P6": (b"P6 1 1 255\n\1\2\3", [[[1, 2, 3]]]),
    "P6 up to 65535": (b"P6 1 1 65535\n" + bytes.fromhex("12ff 00ff ffff"), [[[0x12, 0, 255]]]),
    "BMP of 24 bits": (bmp(24, b"\3\2\1\0"), [[[1, 2, 3]]]),
    "BMP of 32 bits": (bmp(32, b"\3\2\1\0"), [[[1, 2, 3]]]),
    "BMP with alpha": (
        bmp(32, b"\3\2\1\x80", (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
        [[[over_white(value, 0x80) for value in (1, 2, 3)]]],
    ),
    "BMP of 5, 6, 5 bits": (
        bmp(16, struct.pack("<HH", 31 << 11 | 63 << 5, 0), (0xF800, 0x7E0, 0x1F)),
        [[[255, 255, 0]]],
    ),
    "a red frame of a GIF": (encoded(RED, "GIF", save_all=True, append_images=[GREEN]), np.asarray(RED).tolist()),
    "a red frame of a WebP": (
        encoded(RED, "WEBP", save_all=True, append_images=[GREEN], lossless=True),
        np.asarray(RED).tolist(),
    ),
    "a red frame of an APNG": (encoded(RED, "PNG", save_all=True, append_images=[GREEN]), np.asarray(RED).tolist()),
    "a transparent WebP": (
        encoded(Image.new("RGBA", (1, 1), (1, 2, 3, 128)), "WEBP", lossless=True, exact=True),
        [[[over_white(value, 128) for value in (1, 2, 3)]]],
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_pixels_come_out_as_they_are_stored(name: str) -> None:
    data, expected = EXACT[name]
    assert decode(data).tolist() == expected


def test_avif() -> None:
    smooth = Image.fromarray(noise(3, 4)).resize((40, 24), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decode(encoded(smooth, "AVIF", quality=95, exif=exif))
    assert np.abs(found.astype(int) - np.rot90(np.asarray(smooth), -1)).mean() < 4
    sequence = encoded(RED, "AVIF", save_all=True, append_images=[GREEN])
    assert np.abs(decode(sequence).astype(int) - np.asarray(RED)).max() < 8
    deep = bytearray(encoded(smooth, "AVIF"))
    deep[deep.index(b"av1C") + 6] |= 0x40
    with pytest.raises(ImageError, match="is an AVIF of more than 8 bits per channel; convert it to 8 bits"):
        decode(bytes(deep))


REFUSED = {
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0",
    "JPEG 2000": encoded(RED, "JPEG2000"),
    "Photoshop (PSD)": b"8BPS\0\1" + bytes(40),
    "FITS": b"SIMPLE  =                    T".ljust(80),
    "ICO": encoded(RED, "ICO"),
    "a compressed BMP": bmp(8, b"\0\1", (1,)).replace(struct.pack("<I", 3), struct.pack("<I", 1), 1),
    "QOI": encoded(RED, "QOI"),
    "TGA or CUR": encoded(RED, "TGA"),
    "SGI": encoded(RED, "SGI"),
    "PAM": b"P7\nWIDTH 1\n",
    "PDF": encoded(RED, "PDF"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_formats_are_refused_by_name(name: str) -> None:
    with pytest.raises(ImageError, match=f"^image: is {name.replace('(', '.').replace(')', '.')}"):
        decode(REFUSED[name])


@pytest.mark.parametrize("kind", ["PCX", "XBM", "MSP"])
def test_formats_without_a_sure_beginning_are_refused(kind: str) -> None:
    image = Image.new("1" if kind in ("XBM", "MSP") else "RGB", (9, 9))
    with pytest.raises(ImageError, match="not an image that samdeploy reads; expected JPEG, PNG, "):
        decode(encoded(image, kind))


def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a program may have set for purposes of its own."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 10)
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 10)
    monkeypatch.setattr(GifImagePlugin, "LOADING_STRATEGY", GifImagePlugin.LoadingStrategy.RGB_ALWAYS)


def kinds() -> dict[str, bytes]:
    image = Image.fromarray(IMAGE)
    files = {kind: encoded(image, kind) for kind in ("JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM")}
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>', zip=True)
    files["PNG"] = encoded(image, "PNG", pnginfo=info)
    files["TIFF LZW"] = encoded(image, "TIFF", compression="tiff_lzw")
    files["progressive JPEG"] = encoded(image, "JPEG", progressive=True)
    return files


FILES = kinds()


@pytest.mark.parametrize("kind", FILES)
def test_no_switch_of_the_program_around_changes_an_answer(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = decode(FILES[kind])
    host(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(decode(FILES[kind]), expected)
        for percent in (30, 60, 90):
            whole = FILES[kind]
            with pytest.raises(ImageError):
                decode(whole[: len(whole) * percent // 100])


def test_a_pillow_image_that_is_not_decoded_is_read_as_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    negative = tiff([b"\0\0\xff\xff"], (2, 1), [16], 0)
    assert decode(Image.open(io.BytesIO(negative))).tolist() == grey(255, 0)
    half = Image.open(io.BytesIO(FILES["JPEG"][: len(FILES["JPEG"]) // 2]))
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ImageError, match="before EOI"):
        decode(half)


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(3 << 20))),
        chunk(b"zTXt", b"prompt\0\0" + zlib.compress(bytes(3 << 20))),
        chunk(b"zTXt", b"prompt\0\0" + zlib.compress(bytes(9 << 20))) * 300,
        chunk(b"iTXt", b"prompt\0\1\0\0\0no deflate"),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b'tiff:Orientation="6"' + bytes(1 << 20))),
        chunk(b"eXIf", bytes((1 << 20) + 1)),
        chunk(b"tEXt", b"no keyword")[:-1] + b"?",
        chunk(b"gAMA", b""),
    ],
    ids=["profile", "text", "300 texts", "damaged", "xmp", "exif", "checksum", "gamma"],
)
def test_metadata_of_a_png_decides_about_metadata_only(extra: bytes) -> None:
    whole = encoded(Image.fromarray(IMAGE), "PNG")
    for content in (whole[:33] + extra + whole[33:], whole[:-12] + extra + whole[-12:]):
        assert np.array_equal(decode(content), IMAGE)
