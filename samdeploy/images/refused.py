"""Why an image is refused, before its name is known."""

from __future__ import annotations

from collections.abc import Callable

# Called with width and height, before memory is reserved for them.
CheckSize = Callable[[int, int], None]


class RefusedImage(Exception):
    """A sound file that is not read; its text says what it is and how to convert it.  Never leaves `samdeploy`."""


# What a decoder holds whole, because it cannot give it row by row: coefficients of a progressive JPEG, an interlaced
# PNG (docs/bundle.md, section 4.5).
MOST_HELD_BYTES = 160 << 20
# The samples of an image in a format of which no reader gives rows.
MOST_WHOLE_BYTES = 256 << 20


def check_held(held: int, kind: str) -> None:
    """Refuse an image of which a decoder would hold more than `MOST_HELD_BYTES`.

    Raises:
        RefusedImage: it would.
    """
    if held > MOST_HELD_BYTES:
        raise RefusedImage(
            f"decoding a {kind} of this size takes {held >> 20} MiB, at most {MOST_HELD_BYTES >> 20} are allowed; "
            "convert it to one that is not, or scale it down first"
        )


def check_whole(pixels: int, pixel_bytes: int, kind: str) -> None:
    """Refuse an image whose samples take more than `MOST_WHOLE_BYTES`, in a format that is decoded whole.

    Decoders hold the samples up to four times, so this bounds them, where `max_pixels` knows no depth.

    Args:
        pixels: width * height.
        pixel_bytes: of one pixel, in the file or in Pillow's memory, whichever is more.

    Raises:
        RefusedImage: they do.
    """
    held = pixels * pixel_bytes
    if held > MOST_WHOLE_BYTES:
        raise RefusedImage(
            f"is a {kind} of {pixels:,} pixels, which are {held >> 20} MiB while it is decoded; at most "
            f"{MOST_WHOLE_BYTES >> 20} are allowed, scale it down first or convert it to JPEG"
        )
