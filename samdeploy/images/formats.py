"""The formats that are read, each with how it begins; all others are refused by name.

A format is here when a test shows that its pixels come out as they are stored (docs/bundle.md, section 4.1).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

from PIL import Image

from samdeploy.images import gif, jpeg, netpbm, png, tiff
from samdeploy.images.metadata import orientation
from samdeploy.images.refused import CheckSize, RefusedImage, check_whole
from samdeploy.images.strict import StrictAvif, StrictBmp, StrictWebp

Reader = Callable[[bytes, CheckSize], tuple[Image.Image, int]]

# So many bytes tell which format a file has.
BEGINNING = 16

EXPECTED = "expected JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or Netpbm; convert it first"

# First bytes, where they stand, and whose they are.
_REFUSED = (
    (0, b"%!PS", "EPS, a program that draws"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS, a program that draws"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "Photoshop (PSD)"),
    (0, b"DDS ", "DDS"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"\0\0\2\0", "TGA or CUR"),
    (0, b"icns", "ICNS"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"II\xbc\1", "JPEG XR"),
    (0, b"qoif", "QOI"),
    (0, b"v/1\1", "OpenEXR"),
    (0, b"#?", "Radiance HDR"),
    (0, b"PF", "PFM, which holds floating-point numbers"),
    (0, b"Pf", "PFM, which holds floating-point numbers"),
    (0, b"P7", "PAM"),
    (0, b"\x01\xda", "SGI"),
    (0, b"\x93NUMPY", "a numpy array"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML"),
    (0, b"<!DOCTYPE", "a web page"),
    (0, b"<html", "a web page"),
    (0, b"PK\3\4", "a zip archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (4, b"ftyphe", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypmsf1", "HEIF"),
    (4, b"ftyp", "a video, or a raw file"),
)


def reader_of(beginning: bytes) -> Reader:
    """How a file is read that begins like this.

    Args:
        beginning: its first `BEGINNING` bytes, or all of them where it has fewer.

    Raises:
        RefusedImage: it is of a format that is not read, or of none.
    """
    for begins, reader in _READ:
        if begins(beginning):
            return reader
    for at, magic, name in _REFUSED:
        if beginning[at : at + len(magic)] == magic:
            raise RefusedImage(f"is {name}; {EXPECTED}")
    raise RefusedImage("not an image that samdeploy reads; " + EXPECTED)


def _read_bmp(content: bytes, check_size: CheckSize) -> tuple[Image.Image, int]:
    header, compression = struct.unpack_from("<I", content, 14)[0], struct.unpack_from("<I", content, 30)[0]
    if header > 12 and compression not in (0, 3, 6):
        raise RefusedImage("is a compressed BMP; convert it to PNG")
    image = StrictBmp(io.BytesIO(content), "")
    check_size(*image.size)
    check_whole(image.width * image.height, 1 if image.mode in ("1", "L") else 4, "BMP")
    image.load()
    return image, 1


def read_webp(content: bytes, check_size: CheckSize) -> tuple[Image.Image, int]:
    """Of an animation the first frame."""
    image = open_webp(content, check_size)
    image.load()
    return image, orientation(image.info.get("exif"), image.info.get("xmp"))


def open_webp(content: bytes, check_size: CheckSize) -> Image.Image:
    """Undecoded; its file is whole."""
    width, height = _webp_size(content)
    check_size(width, height)
    check_whole(width * height, 4, "WebP")
    image = StrictWebp(io.BytesIO(content), "")
    check_size(*image.size)
    return image


def _webp_size(content: bytes) -> tuple[int, int]:
    """Of the canvas, which is reserved as soon as the file is opened (RFC 9649, sections 2.5 to 2.7)."""
    head = content[:30].ljust(30, b"\0")
    if head[12:16] == b"VP8 ":
        return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
    if head[12:16] == b"VP8L":
        packed = int.from_bytes(head[21:25], "little")
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1


def _read_avif(content: bytes, check_size: CheckSize) -> tuple[Image.Image, int]:
    """8 bits; of a sequence the first frame."""
    at = content.find(b"av1C")
    while at >= 0:
        if content[at + 4 : at + 5] == b"\x81" and content[at + 6] & 0x40:  # AV1 in ISOBMFF, 2.3.3: high_bitdepth
            raise RefusedImage("is an AVIF of more than 8 bits per channel; convert it to 8 bits")
        at = content.find(b"av1C", at + 4)
    image = StrictAvif(io.BytesIO(content), "")
    check_size(*image.size)
    check_whole(image.width * image.height, 4, "AVIF")
    image.load()
    return image, orientation(image.info.get("exif"), image.info.get("xmp"))


def _starts(*signatures: bytes) -> Callable[[bytes], bool]:
    return lambda beginning: beginning.startswith(signatures)


_READ: tuple[tuple[Callable[[bytes], bool], Reader], ...] = (
    (_starts(jpeg.SIGNATURE), jpeg.read_jpeg),
    (_starts(png.SIGNATURE), png.read_png),
    (_starts(*gif.SIGNATURES), gif.read_gif),
    (_starts(b"BM"), _read_bmp),
    (lambda beginning: beginning[:4] == b"RIFF" and beginning[8:12] == b"WEBP", read_webp),
    (_starts(*tiff.SIGNATURES), tiff.read_tiff),
    (lambda beginning: beginning[:2] in netpbm.SIGNATURES and beginning[2:3] in b" \t\r\n\v\f#", netpbm.read_netpbm),
    (lambda beginning: beginning[4:12] in (b"ftypavif", b"ftypavis"), _read_avif),
)
