"""Pillow's decoders, deaf to the switches of the program around them.

`ImageFile.LOAD_TRUNCATED_IMAGES` and `Image.MAX_IMAGE_PIXELS` are variables of the whole process.  Setting them for the
time of one decoding would change what other threads decode, so the functions that read them are copied with values of
their own.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from types import FunctionType, SimpleNamespace
from typing import Any

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)


def _copy(function: Any, **names: Any) -> Any:
    """`function`, which sees `names` in place of its module's own."""
    copied = FunctionType(
        function.__code__, {**function.__globals__, **names}, function.__name__, function.__defaults__,
        function.__closure__,
    )  # fmt: skip
    copied.__kwdefaults__ = function.__kwdefaults__
    return copied


# Pillow's own check of an image's size; ours came first.
_IMAGE = SimpleNamespace(**{**vars(Image), "_decompression_bomb_check": lambda *_, **__: None})


class _Strict(ImageFile.ImageFile):
    load = _copy(ImageFile.ImageFile.load, LOAD_TRUNCATED_IMAGES=False)


class StrictJpeg(JpegImagePlugin.JpegImageFile, _Strict):
    pass


class StrictPng(PngImagePlugin.PngImageFile, _Strict):
    pass


class StrictBmp(BmpImagePlugin.BmpImageFile, _Strict):
    pass


class StrictGif(GifImagePlugin.GifImageFile, _Strict):
    _seek = _copy(
        GifImagePlugin.GifImageFile._seek,
        Image=_IMAGE,
        LOADING_STRATEGY=GifImagePlugin.LoadingStrategy.RGB_AFTER_FIRST,
    )


class StrictTiff(TiffImagePlugin.TiffImageFile, _Strict):
    load_prepare = _copy(TiffImagePlugin.TiffImageFile.load_prepare, Image=_IMAGE)


class StrictWebp(WebPImagePlugin.WebPImageFile, _Strict):
    _open = _copy(WebPImagePlugin.WebPImageFile._open, Image=_IMAGE)


class StrictAvif(AvifImagePlugin.AvifImageFile, _Strict):
    _open = _copy(AvifImagePlugin.AvifImageFile._open, DECODE_CODEC_CHOICE="auto")


def opened(kind: type[_Strict], content: bytes, parts: Sequence[memoryview]) -> _Strict:
    """An image of which Pillow sees the `parts` of its file alone; nothing is decoded yet."""
    is_whole = sum(map(len, parts)) == len(content)
    return kind(io.BytesIO(content if is_whole else b"".join(parts)), "")
