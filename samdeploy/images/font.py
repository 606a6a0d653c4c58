"""The letters that samdeploy draws into images."""

from __future__ import annotations

import functools
from pathlib import Path

from PIL import ImageFont


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, `size` pixels high: matplotlib carries it, and it has the letters of most alphabets.

    Without matplotlib Pillow's own, which knows Latin alone.
    """
    try:
        import matplotlib
    except ImportError:
        found = ImageFont.load_default(size + 1)  # smaller, and spaces between words vanish
        assert isinstance(found, ImageFont.FreeTypeFont)
        return found
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
