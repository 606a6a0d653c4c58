"""Look at the test images before any engine does: copies, labels, and whether they were trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from samdeploy.arrays import Float32Array, Int64Array
from samdeploy.bundle import Bundle
from samdeploy.data.dataset import Samples
from samdeploy.data.duplicates.alike import thumbnails
from samdeploy.data.duplicates.copies import find_two_labels
from samdeploy.data.duplicates.image_hashes import ImageHashes, hash_images
from samdeploy.data.duplicates.leaks import LeakReport
from samdeploy.data.protocol import HONEST
from samdeploy.evaluate.passes import BATCH
from samdeploy.evaluate.test_set.distinct import TestImages, count_test_images, distinct_images
from samdeploy.evaluate.test_set.prepared import PreparedImages
from samdeploy.evaluate.test_set.seen_in_training import (
    beside,
    find_test_leaks,
    known_images,
    left_out,
    not_looked_at,
    trained_on,
)


@dataclass(frozen=True, slots=True)
class Examined:
    """What is known of the test images.

    Attributes:
        hashes: of all of them.
        distinct: int64 [M], the first copy of each distinct one that is judged.
        notes: which are not.
        test_images: those that are judged, counted.
        leaks: distinct ones that are in train or val; None where those are not known.
        faults: why no engine can pass on them.
    """

    hashes: ImageHashes
    distinct: Int64Array
    notes: tuple[str, ...]
    test_images: TestImages
    leaks: LeakReport | None
    faults: tuple[str, ...]


def examine(bundle: Bundle, samples: Samples, images: PreparedImages) -> Examined:
    """Examine all images of `images`, which holds those that are judged alone from then on.

    Raises:
        BundleError, DatasetError: the hashes of the bundle or of its run are damaged.
    """
    hashes = hash_images(images.batches(BATCH), samples.names, samples.labels)

    found = examine_hashes(bundle, hashes, known_images(bundle), partial(thumbnails_of, images))
    images.keep(found.distinct)
    return found


def thumbnails_of(images: PreparedImages, rows: Int64Array) -> Float32Array:
    """float32 [M, 64]: the thumbnails of the images at `rows`, int64 [M]."""
    parts = (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))
    return np.concatenate([thumbnails(images.take(part)) for part in parts])


def examine_hashes(
    bundle: Bundle,
    hashes: ImageHashes,
    known: Mapping[str, ImageHashes],
    small: Callable[[Int64Array], Float32Array] | None,
) -> Examined:
    """Examine test images by their hashes.

    Args:
        hashes: of all test images.
        known: of the images of train and val, see `known_images`.
        small: the thumbnails, float32 [M, 64], of the images at places int64 [M]; None: not known.
    """
    classes, kept = bundle.spec.classes, not_looked_at(bundle, hashes)
    judged = hashes.take(kept)
    first = distinct_images(judged)
    two_labels = find_two_labels(beside(known, judged), classes, of="test")
    alike = None if small is None else partial(small, kept[first])
    test_images = count_test_images(judged, first, alike, len(classes), two_labels)
    leaks = find_test_leaks(known, judged.take(first))
    faults = trained_on(leaks, str(bundle.data.options.get("protocol", HONEST)), imported=bundle.is_imported)
    return Examined(hashes, kept[first], left_out(kept, hashes), test_images, leaks, faults)
