"""JPEG: which markers a file has, and whether they lead to its end (ITU-T T.81, annex B).

Pillow fills with grey what a file lacks, and hides libjpeg's warnings.  So the markers are followed to EOI before
anything is decoded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from PIL import Image

from samdeploy.images.metadata import MOST_METADATA, orientation
from samdeploy.images.refused import CheckSize, RefusedImage, check_held
from samdeploy.images.strict import StrictJpeg, opened

SIGNATURE = b"\xff\xd8\xff"

# FF 00 is a stuffed byte and FF FF a fill byte; RST0 to RST7 stand within a scan.
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_FILL = b"\xff" * 64
_SOI, _EOI, _SOS, _DNL = 0xD8, 0xD9, 0xDA, 0xDC
_ALONE = frozenset(range(0xD0, 0xD8))  # markers without a segment that are passed over
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_READ = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
# What libjpeg needs besides: tables, restart interval, and which colours the components are.
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDD, 0xE0, 0xEE})
_PASSED_OVER = frozenset({*range(0xE1, 0xF0), 0xFE, _DNL}) - {0xEE}

_MOST_MARKERS = 1 << 16
_FEW_SCANS, _MOST_SCANS, _MOST_WORK = 16, 100, 1 << 31


@dataclass(slots=True)
class Markers:
    """What a file's markers say.

    Attributes:
        width, height: in pixels.
        components: sampling factors of each, horizontal and vertical.
        parts: what the pixels are made from, without metadata and fill bytes.
        exif, xmp: the blocks, or None.
    """

    width: int = 0
    height: int = 0
    components: list[tuple[int, int]] = field(default_factory=list)
    is_progressive: bool = False
    is_huffman: bool = True
    scans: int = 0
    parts: list[memoryview] = field(default_factory=list)
    exif: bytearray | None = None
    xmp: bytes | None = None


def read_jpeg(content: bytes, check_size: CheckSize) -> tuple[Image.Image, int]:
    """The decoded image and its orientation, 1 to 8.

    Args:
        content: the whole file; begins with `SIGNATURE`.
        check_size: called with width and height before memory is reserved.

    Raises:
        ValueError: it is damaged, truncated, or of a kind that is not read; says why.
    """
    markers = follow_markers(content, check_size)
    image = opened(StrictJpeg, content, markers.parts)
    image.load()
    return image, orientation(markers.exif, markers.xmp)


def follow_markers(content: bytes, check_size: CheckSize) -> Markers:
    """Follow the markers to EOI; what comes after it is not looked at.

    Raises:
        ValueError: they do not lead there, or over too many scans.
    """
    if content[:2] != SIGNATURE[:2]:
        raise ValueError("JPEG: does not begin with SOI")
    view, found, at, kept = memoryview(content), Markers(), 2, 0  # what is kept begins at `kept`
    for _ in range(_MOST_MARKERS):
        match = _MARKER.search(content, at)
        if match is None:
            raise ValueError("JPEG: the file ends before EOI")
        if match.start() > at:
            found.parts.append(view[kept:at])
            kept = match.start()
        at = match.end()
        marker = content[at - 1]
        if marker == _EOI:
            break
        if marker in _ALONE:
            continue
        end = at + (content[at] << 8 | content[at + 1] if at + 1 < len(content) else 0)
        if end < at + 2 or end > len(content):
            raise ValueError("JPEG: the file ends within a segment")
        if marker not in _TABLES:
            _look(marker, view[at + 2 : end], found, check_size)
        if marker == _SOS:
            scan_end = _END_OF_SCAN.search(content, end)
            if scan_end is None:
                raise ValueError("JPEG: the file ends before EOI")
            end, begin = scan_end.start(), end
            if _FILL in content[begin:end]:
                found.parts += [view[kept:begin], memoryview(_without_fill(content[begin:end]))]
                kept = end
        elif marker in _PASSED_OVER:
            found.parts.append(view[kept : at - 2])
            kept = end
        at = end
    else:
        raise ValueError(f"JPEG: more than {_MOST_MARKERS:,} markers")
    if not found.scans:
        raise ValueError("JPEG: no scan")
    # Each block takes one bit at least.  Arithmetic coding may take less.
    if found.is_huffman and 8 * at < _blocks(found):
        raise ValueError(f"JPEG: {at:,} bytes cannot hold {_blocks(found):,} blocks")
    found.parts.append(view[kept:at])
    return found


def _without_fill(scan: bytes) -> bytes:
    """Long runs of FF mean one: libjpeg begins such a run anew with each piece of the file that Pillow hands it."""
    while _FILL in scan:
        scan = scan.replace(_FILL, b"\xff")
    return scan


def _look(marker: int, data: memoryview, found: Markers, check_size: CheckSize) -> None:
    if marker in _FRAMES:
        _look_at_frame(marker, data, found, check_size)
    elif marker == _SOS:
        if not found.width:
            raise ValueError("JPEG: a scan before the frame header")
        _look_at_scan(data, found)
    elif marker == 0xE1:
        _look_at_metadata(data, found)
    elif marker not in _PASSED_OVER:
        raise ValueError(f"JPEG: unknown marker {marker:02X}")


def _look_at_frame(marker: int, data: memoryview, found: Markers, check_size: CheckSize) -> None:
    if found.width or len(data) < 6:
        raise ValueError("JPEG: two frame headers" if found.width else "JPEG: short frame header")
    bits, components = data[0], data[5]
    if marker not in _READ or bits != 8 or components not in (1, 3, 4):
        raise RefusedImage(
            f"is a JPEG of process SOF{marker - 0xC0} with {bits} bits and {components} components; expected SOF0, 1, "
            "2, 9 or 10 with 8 bits and 1, 3 or 4 components, convert it first"
        )
    found.height, found.width = int.from_bytes(data[1:3], "big"), int.from_bytes(data[3:5], "big")
    if not found.width or not found.height:
        raise ValueError(f"JPEG: {found.width}x{found.height} pixels")
    check_size(found.width, found.height)
    factors = data[7::3][:components]
    found.components = [(factor >> 4, factor & 15) for factor in factors]
    if len(data) < 6 + 3 * components or not all(0 < h <= 4 and 0 < v <= 4 for h, v in found.components):
        raise ValueError("JPEG: damaged frame header")
    found.is_progressive, found.is_huffman = marker in (0xC2, 0xCA), marker <= 0xC2


def _look_at_scan(data: memoryview, found: Markers) -> None:
    if not found.scans and (found.is_progressive or not data or data[0] < len(found.components)):
        check_held(128 * _blocks(found), "JPEG that is progressive, or of several scans,")
    found.scans += 1
    pixels = found.width * found.height
    most = max(_FEW_SCANS, min(_MOST_SCANS, _MOST_WORK // pixels))
    if found.scans > most:
        raise RefusedImage(f"is a JPEG of more than {most} scans, too many for its {pixels:,} pixels; save it anew")


def _blocks(found: Markers) -> int:
    """8x8 blocks of all components, whose coefficients libjpeg holds until the last scan."""
    across, down = (8 * max(factors) for factors in zip(*found.components, strict=True))
    return sum(-(-found.width * h // across) * -(-found.height * v // down) for h, v in found.components)


def _look_at_metadata(data: memoryview, found: Markers) -> None:
    exif, xmp = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
    if data[: len(exif)] == exif:
        if found.exif is None:
            found.exif = bytearray(data)
        elif len(found.exif) <= MOST_METADATA:  # a block of more than 64 KiB is continued in the next marker
            found.exif += data[len(exif) :]
    elif data[: len(xmp)] == xmp:
        found.xmp = bytes(data[len(xmp) :])
