"""Where on an image a map belongs: through the crop, the squeeze and the strides of the network, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samdeploy.arrays import Float32Array
from samdeploy.bundle.spec import Preprocessing
from samdeploy.images.resize import placement

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of an image, as shares of its height and width: the image's own corners are 0 and 1."""

    top: float = 0.0
    left: float = 0.0
    height: float = 1.0
    width: float = 1.0


def seen_region(preprocessing: Preprocessing, height: int, width: int) -> Region:
    """The part of an image of `height` x `width` pixels that reaches the network; see `samdeploy.images.resize`.

    With "squeeze" that is all of it.  "center_crop" sees the middle, and nothing of the ends of the longer side.
    """
    place = placement(preprocessing, height, width)
    return Region(
        top=place.top / place.height,
        left=place.left / place.width,
        height=preprocessing.height / place.height,
        width=preprocessing.width / place.width,
    )


def place_map(
    cam: Float32Array, region: Region, preprocessing: Preprocessing, shape: tuple[int, int]
) -> tuple[Float32Array, BoolArray]:
    """Bring a map to the pixels of an image, bilinearly between the centres of its cells.

    Cells lie the network's stride apart, 32 input pixels in most, and their grid is centred on the input.  At multiples
    of it that is the middle of h x w equal parts.  By arithmetic alone, receptive fields are centred on pixels 0, 32,
    64, ..., since padding at the lower right is not reached at even sizes; but then the last 31 pixels would be seen
    from one side only, and training shifts what the filters look for (Alsallakh et al. 2021, "Mind the Pad").  In a
    trained SAM-ResNet-18 at 160 pixels, objects lay 12 pixels beyond 32 i (mean of two classes, n = 89); the centred
    grid says 15.5 (`benchmarks/evaluate/cam_place.py`).

    Args:
        cam: float32 [h, w].
        region: what of the image the network saw.
        preprocessing: the size of the network's input.
        shape: (height, width) to draw at, in pixels, of the whole image.

    Returns:
        values float32 [height, width], and bool [height, width]: whether the network saw this pixel.
    """
    rows, seen_rows = _weights(shape[0], region.top, region.height, preprocessing.height, cam.shape[0])
    columns, seen_columns = _weights(shape[1], region.left, region.width, preprocessing.width, cam.shape[1])
    values = np.asarray(rows @ cam @ columns.T, np.float32)
    return values, seen_rows[:, None] & seen_columns[None, :]


def _weights(pixels: int, start: float, extent: float, input_pixels: int, cells: int) -> tuple[Float32Array, BoolArray]:
    """Along one axis: how much each cell counts for each pixel, float32 [pixels, cells], and what was seen."""
    share = ((np.arange(pixels) + 0.5) / pixels - start) / extent  # 0 and 1 are the borders of what was seen
    stride = 2 ** math.ceil(math.log2(input_pixels / cells))  # halvings round up
    first = (input_pixels - 1 - stride * (cells - 1)) / 2  # the pixel that cell 0 is centred on
    at = np.clip((share * input_pixels - 0.5 - first) / stride, 0, cells - 1)
    low = np.minimum(at.astype(np.intp), max(0, cells - 2))
    weights = np.zeros((pixels, cells), np.float32)
    everywhere = np.arange(pixels)
    weights[everywhere, low] = 1 - (at - low)
    if cells > 1:
        weights[everywhere, low + 1] = at - low
    return weights, (share >= 0) & (share <= 1)
