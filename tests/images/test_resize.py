"""The resize, byte for byte, against a numpy twin of it; and what is cut out, copied or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from samdeploy.bundle.spec import RESIZES, Crop, Filter, Preprocessing, Resize
from samdeploy.errors import ImageError
from samdeploy.images.decode import prepare, resize
from samdeploy.images.resize import placement
from tests.images.image_files import UInt8Array, encoded, noise, png

BILINEAR = RESIZES["bilinear"]
BITS = 22  # of the fixed-point weights: 32 minus 8 for the pixel minus 2 for the sum


def triangle(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(0.0, 1.0 - distance)


def cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = (((distance - 5) * distance + 8) * distance - 4) * -0.5
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))


# Kernel and its support, in pixels of the larger of both images.
KERNELS = {RESIZES["bilinear"]: (triangle, 1), RESIZES["bicubic"]: (cubic, 2)}


def twin_weights(length: int, target: int, resize_name: Resize) -> NDArray[np.float64]:
    """The filter as whole numbers, float64 [target, length]; a row sums to about 2**22."""
    kernel, support = KERNELS[resize_name]
    scale = length / target
    stretch = max(scale, 1.0)
    centre = (np.arange(target)[:, None] + 0.5) * scale
    pixel, reach = np.arange(length), support * stretch
    inside = (pixel >= np.trunc(centre - reach + 0.5)) & (pixel < np.trunc(centre + reach + 0.5))
    weights = np.where(inside, kernel(np.abs((pixel - centre + 0.5) * (1 / stretch))), 0.0)
    total = np.cumsum(weights, axis=1)[:, -1:]  # one after another: numpy's sum adds in pairs and rounds differently
    shares = weights / total * (1 << BITS)
    return np.trunc(shares + np.where(shares < 0, -0.5, 0.5))


def twin_pass(image: UInt8Array, target: int, resize_name: Resize) -> UInt8Array:
    """Resize axis 0 of uint8 [h, w, 3]."""
    if target == len(image):
        return image
    # Whole numbers below 2**53: float64 adds them exactly, and BLAS is fast.
    flat = twin_weights(len(image), target, resize_name) @ image.reshape(len(image), -1).astype(np.float64)
    rounded = (flat.astype(np.int64) + (1 << (BITS - 1))) >> BITS
    return np.clip(rounded, 0, 255).astype(np.uint8).reshape(target, *image.shape[1:])


def twin_resize(image: UInt8Array, height: int, width: int, resize_name: Resize = BILINEAR) -> UInt8Array:
    """Vertical first, rounded to uint8, then horizontal."""
    vertical = twin_pass(image, height, resize_name)
    return np.ascontiguousarray(twin_pass(vertical.transpose(1, 0, 2), width, resize_name).transpose(1, 0, 2))


def random_sizes() -> list[tuple[int, int, int, int]]:
    generator = np.random.default_rng(22)
    sizes = [tuple(int(side) for side in generator.integers(1, 301, 4)) for _ in range(120)]
    small = [tuple(int(side) for side in generator.integers(1, 9, 4)) for _ in range(60)]
    edges = [(1, 1, 1, 1), (1, 1, 7, 5), (300, 300, 1, 1), (1, 300, 300, 1), (8, 8, 32, 32), (299, 2, 2, 299)]
    return [*sizes, *small, *edges]  # type: ignore[list-item]


@pytest.mark.parametrize("resize_name", RESIZES.values())
def test_resize_equals_the_twin_byte_for_byte(resize_name: Resize) -> None:
    different = [
        (height, width, target_height, target_width)
        for height, width, target_height, target_width in random_sizes()
        if not np.array_equal(
            resize(noise(height, width), Preprocessing(target_height, target_width, resize=resize_name)),
            twin_resize(noise(height, width), target_height, target_width, resize_name),
        )
    ]
    assert different == []


@pytest.mark.parametrize("resize_name", RESIZES.values())
def test_pillows_own_resize_differs_by_the_order_of_its_passes_alone(resize_name: Resize) -> None:
    """In one call, both axes; Pillow goes horizontal first before version 13."""
    method = Image.Resampling.BICUBIC if resize_name == RESIZES["bicubic"] else Image.Resampling.BILINEAR
    image = np.array(Image.fromarray(noise(12, 16)).resize((160, 120), Image.Resampling.BICUBIC))
    found = resize(image, Preprocessing(37, 53, resize=resize_name))
    theirs = np.asarray(Image.fromarray(image).resize((53, 37), method))
    swapped = twin_resize(image.transpose(1, 0, 2), 53, 37, resize_name).transpose(1, 0, 2)
    assert np.array_equal(theirs, found) or np.array_equal(theirs, swapped)


def test_the_twin_knows_the_order_of_the_passes() -> None:
    """Else the test above would accept a resize that goes horizontal first."""
    image = noise(61, 47)
    swapped = twin_resize(image.transpose(1, 0, 2), 33, 29).transpose(1, 0, 2)
    assert not np.array_equal(swapped, twin_resize(image, 29, 33))


@pytest.mark.parametrize(("resize_name", "expected"), [("bilinear", [0, 50, 150, 200]), ("bicubic", [0, 41, 159, 218])])
def test_two_pixels_to_four_by_hand(resize_name: Filter, expected: list[int]) -> None:
    """0 and 200, at distances 1/4 and 3/4 or 5/4 where the image does not end.

    Bicubic: k(1/4) = 0.867, k(3/4) = 0.227, k(5/4) = -0.070.  200 k(5/4) / (k(1/4) + k(5/4)) = -17.6, cut to 0, for the
    first, 200 k(3/4) / (k(1/4) + k(3/4)) = 41.4 for the second; the others are 200 less these: 158.6 and 217.6.
    """
    row = np.array([[[0] * 3, [200] * 3]], dtype=np.uint8)
    assert resize(row, Preprocessing(1, 4, resize=RESIZES[resize_name]))[0, :, 0].tolist() == expected
    assert (
        resize(row.transpose(1, 0, 2), Preprocessing(4, 1, resize=RESIZES[resize_name]))[:, 0, 0].tolist() == expected
    )


@pytest.mark.parametrize(
    ("height", "width", "short", "crop", "scaled"),
    [
        (50, 80, 40, (32, 32), (40, 64)),
        (80, 50, 40, (32, 32), (64, 40)),
        (31, 31, 40, (40, 40), (40, 40)),
        (37, 53, 29, (28, 28), (29, 41)),  # 29 * 53 / 37 = 41.5, rounded down, and so are odd margins: 0 of 1, 6 of 13
        (53, 37, 29, (28, 28), (41, 29)),
        (1, 9, 8, (8, 8), (8, 72)),
    ],
)
def test_center_crop(height: int, width: int, short: int, crop: tuple[int, int], scaled: tuple[int, int]) -> None:
    image = noise(height, width)
    whole = twin_resize(image, *scaled)
    top, left = (scaled[0] - crop[0]) // 2, (scaled[1] - crop[1]) // 2
    found = resize(image, Preprocessing(*crop, fit="center_crop", resize_short=short))
    assert np.array_equal(found, whole[top : top + crop[0], left : left + crop[1]])
    assert found.flags.c_contiguous


def test_half_even_cuts_where_torchvision_does() -> None:
    functional = pytest.importorskip("torchvision.transforms.functional")
    for width, target in [(width, target) for width in range(5, 19) for target in range(3, 6)]:
        image = Image.fromarray(noise(5, width))
        size = Preprocessing(target, target, "center_crop", 5, crop="half-even")
        assert np.array_equal(resize(np.asarray(image), size), np.asarray(functional.center_crop(image, target)))


@pytest.mark.parametrize(
    ("crop", "lefts"), [("floor", [0, 0, 1, 1, 2, 2, 3, 3]), ("half-even", [0, 0, 1, 2, 2, 2, 3, 4])]
)
def test_the_half_of_an_odd_margin(crop: Crop, lefts: list[int]) -> None:
    size = Preprocessing(5, 5, "center_crop", 5, crop=crop)
    assert [placement(size, 5, 5 + margin).left for margin in range(8)] == lefts
    assert [placement(size, 5 + margin, 5).top for margin in range(8)] == lefts


def test_resize_to_the_same_size_gives_a_copy() -> None:
    image = noise(9, 7)
    found = resize(image, Preprocessing(9, 7))
    assert np.array_equal(found, image)
    assert not np.shares_memory(found, image)


@pytest.mark.parametrize(
    ("shape", "preprocessing"),
    [
        ((1, 1_000_000, 3), Preprocessing(224, 224)),
        ((60_000, 1, 3), Preprocessing(224, 224, "center_crop", 256)),
    ],
)
def test_a_thread_of_pixels_does_not_fill_the_memory(
    shape: tuple[int, ...], preprocessing: Preprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("must be refused before Pillow reserves memory")

    monkeypatch.setattr(Image.Image, "resize", refuse)
    thread = np.zeros(shape, dtype=np.uint8)
    with pytest.raises(ImageError, match=r"too long and thin to be brought to \d+x\d+; crop the image first"):
        resize(thread, preprocessing)


def test_a_panorama_is_not_a_thread() -> None:
    assert resize(np.zeros((100, 30_000, 3), np.uint8), Preprocessing(64, 64)).shape == (64, 64, 3)


def test_prepare_names_the_file_that_is_too_thin(tmp_path: Path) -> None:
    path = tmp_path / "thread.png"
    path.write_bytes(png(1_000_000, 1, 1, 0, [bytes(125_000)]))
    with pytest.raises(ImageError, match=r"thread\.png: 1000000x1 pixels \(width x height\) are too long and thin"):
        prepare(path, Preprocessing(224, 224))


def test_prepare_is_decode_and_resize() -> None:
    data = encoded(Image.fromarray(noise(40, 50)), "PNG")
    assert np.array_equal(prepare(data, Preprocessing(12, 10)), twin_resize(noise(40, 50), 12, 10))
