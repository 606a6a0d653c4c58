"""Images of one set that look like another one of it: their thumbnails differ in brightness and contrast alone.

Costs more than the perceptual hashes of `samdeploy.data.duplicates.likeness`, which a run keeps of training images,
and sees more: of 8x8 digits, and of JPEG copies of Fashion-MNIST at quality 75, all are found instead of 1 and 97 %.
"""

from __future__ import annotations

import numpy as np

from samdeploy.arrays import Float32Array, Int64Array, UInt8Array
from samdeploy.data.duplicates.image_hashes import LUMA
from samdeploy.progress import Advance

# Cells along each side of a thumbnail.
_CELLS = 8
# Correlation from which two thumbnails are alike: JPEG at quality 75 stays above it for 99.9 % of Fashion-MNIST's
# images and all digits; of the honest test images 6 of 10,000 and 0 of 359 reach it.
ALIKE = 0.999
# Rows that are compared at a time with all before them: 40 MB for 10,000 images.
_ROWS = 1000


def thumbnails(images: UInt8Array) -> Float32Array:
    """Grey means over 8x8 cells, less their mean and of length 1: products of two are correlations.

    Args:
        images: uint8 [n, H, W, 3] RGB.

    Returns:
        float32 [n, 64]; zero for an image that varies by less than a grey level.
    """
    grey = images.astype(np.float32) @ LUMA
    rows, columns = _means(images.shape[1]), _means(images.shape[2])
    cells = (rows @ (grey @ columns.T)).reshape(len(images), -1)
    cells -= cells.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(cells, axis=1, keepdims=True)
    is_flat = lengths < _CELLS  # the root of the mean square is less than 1
    return np.where(is_flat, 0, cells / np.maximum(lengths, 1)).astype(np.float32)


def find_alike(found: Float32Array, advance: Advance | None = None) -> Int64Array:
    """Which thumbnails are like an earlier one: int64 [M, 2], each with the earlier one it is most like.

    Args:
        found: float32 [N, 64], from `thumbnails`.
        advance: called with the number done, and "".
    """
    pairs = [np.empty((0, 2), np.int64)]
    for start in range(0, len(found), _ROWS):
        block = found[start : start + _ROWS]
        correlations = block @ found[: start + len(block)].T
        own = np.arange(len(block))
        # Only what is before each row: of the block itself, the part below the diagonal.
        correlations[:, start:][own[:, None] <= own] = -1
        best = correlations.argmax(axis=1)
        rows = np.flatnonzero(correlations[own, best] > ALIKE)
        pairs.append(np.stack([rows + start, best[rows]], axis=1))
        if advance is not None:
            advance(len(block), "")
    return np.concatenate(pairs)


def _means(length: int) -> Float32Array:
    """float32 [8, length]: each row the mean over an eighth of the pixels, those at its ends in part."""
    ends = np.linspace(0, length, _CELLS + 1)
    pixels = np.arange(length)
    shares = np.minimum(ends[1:, None], pixels + 1) - np.maximum(ends[:-1, None], pixels)
    return np.asarray(np.clip(shares, 0, None) * (_CELLS / length), np.float32)
