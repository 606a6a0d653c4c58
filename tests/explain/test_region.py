"""Where a map is drawn: the right part of the image, the right place in it."""

from __future__ import annotations

import numpy as np
import pytest

from samdeploy.bundle.spec import Preprocessing
from samdeploy.explain.region import Region, place_map, seen_region
from samdeploy.images.decode import resize

SQUEEZE = Preprocessing(64, 96)
CROP = Preprocessing(64, 64, fit="center_crop", resize_short=96)


def test_squeeze_sees_everything() -> None:
    assert seen_region(SQUEEZE, 200, 37) == Region(0, 0, 1, 1)


@pytest.mark.parametrize("size", [(96, 96), (96, 192), (301, 120), (77, 1000), (50, 51)])
def test_the_region_of_a_crop_is_what_the_crop_holds(size: tuple[int, int]) -> None:
    """An image whose pixels say where they are, through the real preprocessing."""
    height, width = size
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[:, :, 0] = np.round((np.arange(height) + 0.5) / height * 255)[:, None]
    ramp[:, :, 1] = np.round((np.arange(width) + 0.5) / width * 255)[None, :]
    cut = resize(ramp, CROP).astype(float) / 255
    region = seen_region(CROP, height, width)
    # Shares of the image at the centres of the crop's outermost pixels, but for rounding to whole levels and the
    # filter's half support at the very edge.
    for axis, (start, extent) in enumerate(((region.top, region.height), (region.left, region.width))):
        profile = cut[:, :, axis].mean(axis=1 - axis)
        pixel = extent / 64
        assert profile[0] == pytest.approx(start + pixel / 2, abs=0.006)
        assert profile[-1] == pytest.approx(start + extent - pixel / 2, abs=0.006)
        assert profile[32] == pytest.approx(start + 32.5 * pixel, abs=0.004)


@pytest.mark.parametrize(
    ("pixels", "centres"),
    [
        (96, (15.5, 47.5, 79.5)),
        (97, (0, 32, 64, 96)),
        (65, (0, 32, 64)),
        (33, (0, 32)),
        (128, (15.5, 47.5, 79.5, 111.5)),
    ],
)
def test_cells_lie_32_input_pixels_apart_in_the_middle(pixels: int, centres: tuple[float, ...]) -> None:
    """At multiples of 32 that is the middles of equal parts; at 32 n + 1 every 32nd pixel from first to last."""
    cam = np.random.default_rng(0).normal(size=(len(centres), len(centres))).astype(np.float32)
    values, seen = place_map(cam, Region(), Preprocessing(pixels, pixels), (pixels, pixels))
    assert seen.all()
    at = np.arange(pixels)
    columns = np.stack([np.interp(at, centres, row) for row in cam])
    expected = np.stack([np.interp(at, centres, column) for column in columns.T], axis=1)
    np.testing.assert_allclose(values, expected, atol=1e-5)


def test_a_image_of_another_size_gets_the_same_map() -> None:
    cam = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    small, _ = place_map(cam, Region(), SQUEEZE, (64, 96))
    large, _ = place_map(cam, Region(), SQUEEZE, (192, 288))
    # The middle pixel of each 3x3 block lies where the small image's pixel lies.
    np.testing.assert_allclose(large[1::3, 1::3], small, atol=1e-5)


def test_outside_of_the_crop_nothing_was_seen() -> None:
    region = seen_region(CROP, 100, 400)
    values, seen = place_map(np.ones((2, 2), np.float32), region, CROP, (100, 400))
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    # 100x400 becomes 96x384, and the crop takes rows 16 to 80 and columns 160 to 224 of that.
    assert (rows[0], rows[-1]) == (17, 82)
    assert (columns[0], columns[-1]) == (167, 232)
    assert seen.sum() == len(rows) * len(columns)
    assert values.shape == (100, 400)


def test_one_cell_is_the_same_everywhere() -> None:
    values, seen = place_map(np.full((1, 1), 2.5, np.float32), Region(), Preprocessing(32, 32), (40, 50))
    assert seen.all()
    assert (values == 2.5).all()
