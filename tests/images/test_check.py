"""Broken files that are found without decoding them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy.bundle.spec import Preprocessing
from samdeploy.errors import ImageError
from samdeploy.images import decode

SIZE = Preprocessing(16, 16)
NOISE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


def encoded(format: str) -> bytes:
    """An image of 80x60 pixels."""
    content = io.BytesIO()
    Image.fromarray(NOISE).save(content, format)
    return content.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM"])
def test_whole_files_pass_undecoded(format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image"
    path.write_bytes(encoded(format))
    monkeypatch.setattr(Image.Image, "load", None)
    decode.check_image(path, SIZE)


BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "half a JPEG": (lambda: encoded("JPEG")[:2000], "the file ends before EOI"),
    "half a PNG": (lambda: encoded("PNG")[:2000], "PNG: "),
    "a changed PNG": (lambda: encoded("PNG").replace(b"IDAT", b"IDAT\1", 1), "PNG: "),
    "half a WebP": (lambda: encoded("WEBP")[:2000], "damaged or truncated"),
    "text": (lambda: b"hello", "not an image that samdeploy reads"),
    "nothing": (lambda: b"", "the file is empty"),
    "too many pixels": (lambda: b"P5 60000 60000 255 ", "too many pixels"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named(name: str, tmp_path: Path) -> None:
    make, text = BROKEN[name]
    path = tmp_path / "image.jpg"
    path.write_bytes(make())
    for look in (decode.check_image, decode.prepare):
        with pytest.raises(ImageError, match=rf"image\.jpg: .*{text}"):
            look(path, SIZE)
