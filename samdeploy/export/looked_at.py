"""The images that an imported network's bundle was made with: none of them may be judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from samdeploy.arrays import UInt8Array, UInt64Array
from samdeploy.bundle import open_bundle
from samdeploy.bundle.names import MANIFEST
from samdeploy.data.duplicates.bundle_hashes import ROLES, bundle_hashes
from samdeploy.data.duplicates.image_hashes import ImageHashes, hash_images
from samdeploy.errors import BundleError

NO_IMAGES = np.empty((0, 2), np.uint64)


def looked_at(images: Sequence[UInt8Array], hashes: Mapping[str, ImageHashes], before: Path) -> UInt64Array:
    """What stands for the training images of an imported network.

    Args:
        images: uint8 [n, H, W, 3] each, that this export looks at.
        hashes: of the images that the import looked at.
        before: where an earlier bundle may lie, of which engines are kept.

    Returns:
        uint64 [M, 2] as `bundle_hashes` gives them, without labels.
    """
    count = sum(map(len, images))
    here = hash_images(images, [""] * count, np.full(count, -1))
    measured = [replace(found, labels=np.full(len(found), -1)) for found in hashes.values()]
    rows = [*map(bundle_hashes, (here, *measured)), _looked_at_before(before)]
    return np.unique(np.concatenate(rows), axis=0)


def _looked_at_before(before: Path) -> UInt64Array:
    if not (before / MANIFEST).exists():
        return NO_IMAGES
    try:
        bundle = open_bundle(before)
        known = bundle.find(ROLES["train"]) is not None
        return bundle.array(ROLES["train"], np.dtype(np.uint64), (2,)) if known else NO_IMAGES
    except BundleError:  # damaged: no engine of it is kept
        return NO_IMAGES
