"""GIF: the first image of a file, without what stands around it (GIF89a, sections 18 to 27)."""

from __future__ import annotations

import io
from collections.abc import Iterator

from PIL import Image

from samdeploy.images.refused import CheckSize, RefusedImage, check_whole
from samdeploy.images.strict import StrictGif

SIGNATURES = (b"GIF87a", b"GIF89a")

_EXTENSION, _IMAGE, _TRAILER, _GRAPHIC_CONTROL = 0x21, 0x2C, b"\x3b", 0xF9
# Four times what 64 MiB in blocks of 255 bytes need.
_MOST_BLOCKS = 1 << 20


def read_gif(content: bytes, check_size: CheckSize) -> tuple[Image.Image, int]:
    """The decoded first frame, as large as the screen; its orientation is always 1.

    Args:
        content: the whole file; begins with one of `SIGNATURES`.
        check_size: called with width and height before memory is reserved.

    Raises:
        RefusedImage: cut into too many blocks, or too large to be held whole.
        ValueError: it is damaged, or its first frame is not complete.
    """
    try:
        first = _first_frame(content)
    except IndexError:
        raise ValueError("GIF: the file ends before its first frame does") from None
    image = StrictGif(io.BytesIO(first), "")
    check_size(*image.size)  # a frame may reach beyond the screen
    check_whole(image.width * image.height, 4, "GIF")
    image.load()
    return image, 1


def _first_frame(content: bytes) -> bytes:
    """A file of that frame alone: Pillow copies all comments so far for each further 255 bytes of them."""
    at = 13 + _palette_bytes(content[10])
    parts, control, blocks = [content[:at]], b"", iter(range(_MOST_BLOCKS))
    while content[at] == _EXTENSION:
        end = _after_blocks(content, at + 2, blocks)
        if content[at + 1] == _GRAPHIC_CONTROL:
            control = content[at:end]
        at = end
    if content[at] != _IMAGE:
        raise ValueError("GIF: no frame")
    end = _after_blocks(content, at + 10 + _palette_bytes(content[at + 9]) + 1, blocks)
    return b"".join([*parts, control, content[at:end], _TRAILER])


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_blocks(content: bytes, at: int, blocks: Iterator[int]) -> int:
    """Behind the block of no bytes; each one takes one of `blocks`, which the whole file shares."""
    for _ in blocks:
        size = content[at]
        at += 1 + size
        if not size:
            return at
    raise RefusedImage(f"is a GIF of more than {_MOST_BLOCKS:,} blocks; save it again")
