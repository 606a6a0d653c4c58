"""What is no usable image is refused with its name and the reason, before memory is taken for it."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy.bundle.spec import Preprocessing
from samdeploy.errors import ImageError
from samdeploy.images.decode import decode, prepare
from tests.images.image_files import encoded, noise, png

SOUND_JPEG = encoded(Image.fromarray(noise(64, 64)), "JPEG")
SOUND_PNG = encoded(Image.fromarray(noise(64, 64)), "PNG")

REFUSED = {
    "text.jpg": (b"This is no image.", "not an image that samdeploy reads"),
    "empty.png": (b"", "the file is empty; expected an image"),
    "half.jpg": (
        SOUND_JPEG[: len(SOUND_JPEG) // 2],
        "damaged or truncated (JPEG: the file ends before EOI); expected a complete image",
    ),
    "half.png": (SOUND_PNG[: len(SOUND_PNG) // 2], "damaged or truncated ("),
    "changed.png": (SOUND_PNG[:60] + b"!" + SOUND_PNG[61:], "damaged or truncated ("),
    "floats.tif": (
        encoded(Image.new("F", (2, 2)), "TIFF"),
        "is a TIFF of BlackIsZero with 32 bits, floating-point samples, ",
    ),
    "integers.tif": (
        encoded(Image.new("I", (2, 2)), "TIFF"),
        "is a TIFF of BlackIsZero with 32 bits, signed samples, ",
    ),
    "floats.pfm": (
        b"Pf 1 1 -1.0\n" + struct.pack("<f", 0.5),
        "is PFM, which holds floating-point numbers; expected JPEG, ",
    ),
    "bomb.png": (
        png(60_000, 60_000, 8, 2, []),
        "too many pixels, scale it down first (60000x60000 are 3,600,000,000, ",
    ),
    "drawing.eps": (
        encoded(Image.new("RGB", (2, 2)), "EPS"),
        "is EPS, a program that draws; expected JPEG, PNG, WebP, TIFF, ",
    ),
    "texture.dds": (b"DDS " + bytes(40), "is DDS; expected JPEG, "),
    "page.jpg": (b"<!DOCTYPE html><title>404</title>", "is a web page; expected JPEG, "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_name_and_the_reason(name: str, tmp_path: Path) -> None:
    data, text = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(data)
    for source, shown in ((path, str(path)), (data, "image")):
        with pytest.raises(ImageError) as caught:
            decode(source)
        assert str(caught.value).startswith(f"{shown}: {text}")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"])
def test_the_limit_on_pixels_is_an_argument(kind: str, tmp_path: Path) -> None:
    image = Image.fromarray(noise(20, 30))
    path = tmp_path / f"image.{kind.lower()}"
    image.save(path, kind)
    expected = decode(path)
    text = (
        "too many pixels, scale it down first (30x20 are 600, at most 599 are decoded; "
        "only Classifier.open(max_pixels=) and serve --max-pixels change that)"
    )
    for source, shown in ((path, str(path)), (path.read_bytes(), "image"), (image, "image")):
        decode(source, max_pixels=600)
        with pytest.raises(ImageError) as caught:
            decode(source, max_pixels=599)
        assert str(caught.value) == f"{shown}: {text}"
        with pytest.raises(ImageError, match="at most 599"):
            prepare(source, Preprocessing(4, 4), max_pixels=599)
    assert expected.shape == (20, 30, 3)


def test_the_limit_holds_for_arrays_too() -> None:
    pixels = np.zeros((4, 5, 3), np.uint8)
    assert decode(pixels, max_pixels=20).shape == (4, 5, 3)
    for read in (lambda: decode(pixels, max_pixels=19), lambda: prepare(pixels, Preprocessing(4, 4), max_pixels=19)):
        with pytest.raises(ImageError, match=r"image array: too many pixels, scale it down first \(5x4 are 20"):
            read()


def test_a_full_memory_is_the_images_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a stream goes on with the next one."""
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("samdeploy.images.resize.resize_exact", full)
    with pytest.raises(ImageError, match=r"a\.png: the memory is too full to decode and resize it"):
        prepare(tmp_path / "a.png", Preprocessing(4, 4))


@pytest.mark.parametrize("limit", [299, 300, 599, None])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "PPM"])
@pytest.mark.filterwarnings("error")
def test_pillows_own_limit_has_no_say(
    kind: str, limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It warns above its variable and refuses above twice of it, for the whole process; here warnings are errors."""
    path = tmp_path / f"image.{kind.lower()}"
    Image.fromarray(noise(20, 30)).save(path, kind)
    expected = decode(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    for source in (path, str(path), path.read_bytes()):
        np.testing.assert_array_equal(decode(source), expected)
        with pytest.raises(ImageError, match="too many pixels"):
            decode(source, max_pixels=599)
    assert limit == Image.MAX_IMAGE_PIXELS
    if limit is not None:
        path.write_bytes(path.read_bytes()[:-120])
        with pytest.raises(ImageError, match="damaged or truncated"):
            decode(path)


def test_eps_never_starts_an_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", started)
    data = encoded(Image.new("RGB", (2, 2)), "EPS")
    for source in (data, Image.open(io.BytesIO(data))):
        with pytest.raises(ImageError, match="is EPS"):
            decode(source)


def test_missing_folder_and_unreadable(tmp_path: Path) -> None:
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    for path, text in (
        (tmp_path / "missing.png", "no such file"),
        (tmp_path, "is a folder, an image was expected"),
        (loop, "cannot be read (Too many levels of symbolic links)"),
        (tmp_path / ("x" * 300), "cannot be read (File name too long)"),
    ):
        with pytest.raises(ImageError) as caught:
            decode(path)
        assert str(caught.value) == f"{path}: {text}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(SOUND_PNG)
    path.chmod(0)
    with pytest.raises(ImageError, match=r"may not be read \(permission denied\)"):
        decode(path)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_bytes_raise_nothing_but_our_own_error() -> None:
    """Pillow reports damage through OSError, SyntaxError, struct.error and more; 1,000 damaged files, 5 formats."""
    generator = np.random.default_rng(5)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "text"
    image = Image.fromarray(noise(11, 13))
    sound = [encoded(image, kind, exif=exif) for kind in ("JPEG", "PNG", "WEBP")]
    sound += [encoded(image, kind) for kind in ("GIF", "TIFF")]
    refused = 0
    for round_number in range(1000):
        data = bytearray(sound[round_number % len(sound)])
        reach = min(len(data), 200)
        for position in generator.integers(0, reach, 3):
            data[position] = generator.choice([0, 1, 255])
        try:
            decode(bytes(data))
        except ImageError:
            refused += 1
    assert 100 < refused < 1000  # else the damage was none, or too much to reach the decoders


@pytest.mark.parametrize(
    "error",
    [
        *(OSError("x"), SyntaxError("x"), ValueError("x"), EOFError("x"), IndexError("x"), KeyError("x")),
        *(TypeError("x"), NotImplementedError("x"), ZeroDivisionError("x"), OverflowError("x"), struct.error("x")),
    ],
    ids=repr,
)
def test_every_way_in_which_a_decoder_reports_damage(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise error

    image = Image.new("RGB", (2, 2))
    monkeypatch.setattr(image, "load", fail)
    with pytest.raises(ImageError) as caught:
        decode(image)
    assert str(caught.value) == f"image: damaged or truncated ({error}); expected a complete image"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("", "'': is no path, an image was expected"),
        ("\udcff\ud800.png", r"'\udcff\ud800.png': no file can have this name, an image was expected"),
        (np.zeros((0, 5, 3), np.uint8), "image array: shape [0, 5, 3] found, at least one pixel expected"),
        (np.zeros((5, 0), np.uint8), "image array: shape [5, 0, 3] found, at least one pixel expected"),
        (Image.new("RGB", (0, 7)), "image: 0x7 pixels (width x height), at least one expected"),
    ],
    ids=["an empty path", "a name that cannot be", "no rows", "no columns", "an image of nothing"],
)
def test_what_is_nothing(source: str | np.ndarray | Image.Image, text: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(source)
    assert str(caught.value) == text
    str(caught.value).encode()  # it can be printed


def test_a_path_in_bytes_is_known_as_one(tmp_path: Path) -> None:
    path = tmp_path / "sound.jpg"
    path.write_bytes(SOUND_JPEG)
    for content, hint in ((bytes(path), True), (b"no/such/file.jpg", False), (b"a\0b", False)):
        with pytest.raises(ImageError, match="not an image") as caught:
            decode(content)
        assert str(caught.value).endswith("os.fsdecode() it first") == hint
