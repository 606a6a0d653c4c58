"""What a bundle remembers of the images it was trained and chosen on: 16 bytes each, enough to know a copy again.

uint64 [N, 2] in a .npy file: the first 8 bytes of the SHA-256 of the prepared pixels, little-endian, and the class
index (2^64 - 1 where it is not known), sorted, each pair once.  The chance that one of 10,000 test images is taken for
one of a million by accident is 10^10 / 2^64, or 5e-10.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from samdeploy.arrays import UInt64Array
from samdeploy.data.duplicates.image_hashes import ImageHashes

# Split -> its role in the manifest.
ROLES: Mapping[str, str] = MappingProxyType({"train": "train_hashes", "val": "val_hashes"})


def bundle_hashes(hashes: ImageHashes) -> UInt64Array:
    """What a bundle keeps of one split: uint64 [M, 2]."""
    rows = np.stack([hashes.digests[:, 0], hashes.labels.astype(np.uint64)], axis=1)
    found: UInt64Array = np.unique(rows, axis=0)
    return found


def from_bundle_hashes(rows: UInt64Array, split: str) -> ImageHashes:
    """The images of `split` again, without names and likenesses; digests uint64 [M, 1], perceptual uint64 [M, 0]."""
    names = [f"an image of {split}"] * len(rows)
    return ImageHashes(rows[:, :1], np.empty((len(rows), 0), np.uint64), names, rows[:, 1].astype(np.int64))
