"""What an image may be given as: paths, bytes, Pillow images, arrays; and the files of a folder."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy.errors import ImageError
from samdeploy.images.decode import decode
from tests.images.image_files import UPRIGHT, UInt8Array, grey


def test_path_text_bytes_and_pillow_image_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "Bild mit Umlaut ä.png"
    Image.fromarray(UPRIGHT).save(path)
    for source in (path, str(path), path.read_bytes(), Image.open(path), Image.fromarray(UPRIGHT), UPRIGHT):
        assert decode(source).tolist() == UPRIGHT.tolist()


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "LA", "La", "RGBa", "PA", "CMYK", "YCbCr", "HSV", "I;16"]
)
def test_every_mode_of_a_pillow_image(mode: str) -> None:
    found = decode(Image.new(mode, (3, 2)))
    assert (found.shape, found.dtype) == ((2, 3, 3), np.uint8)


def test_grey_array_becomes_three_channels() -> None:
    assert decode(np.array([[1, 2]], dtype=np.uint8)).tolist() == grey(1, 2)


def test_an_array_may_be_a_view() -> None:
    found = decode(UPRIGHT[::-1, :, ::-1])
    assert found.tolist() == UPRIGHT[::-1, :, ::-1].tolist()
    assert found.flags.c_contiguous


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.zeros((2, 2, 3), np.float32), "dtype float32 found, uint8 expected (0..255, not 0..1)"),
        (np.zeros((2, 2, 3), np.int64), "dtype int64 found, uint8 expected"),
        (np.zeros((2, 2), bool), "dtype bool found, uint8 expected"),
        (np.zeros((2, 2, 4), np.uint8), "shape [2, 2, 4] found, [height, width, 3] RGB expected"),
        (np.zeros((3, 2, 2), np.uint8), "shape [3, 2, 2] found"),
        (np.zeros((1, 2, 2, 3), np.uint8), "shape [1, 2, 2, 3] found"),
        (np.zeros(3, np.uint8), "shape [3] found"),
        (np.zeros((0, 2, 3), np.uint8), "shape [0, 2, 3] found"),
        (np.zeros((2, 0), np.uint8), "shape [2, 0, 3] found"),
    ],
)
def test_arrays_of_wrong_type_or_shape(array: UInt8Array, text: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(array)
    assert str(caught.value).startswith(f"image array: {text}")


@pytest.mark.parametrize(("source", "kind"), [(None, "NoneType"), (3, "int"), (io.BytesIO(b"x"), "BytesIO")])
def test_other_sources_are_named(source: object, kind: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(source)  # type: ignore[arg-type]
    assert str(caught.value) == f"image: {kind} found; expected a path, bytes, a Pillow image or a uint8 array"
