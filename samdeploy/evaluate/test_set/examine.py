"""Look at the test images before any engine does: copies, labels, and whether they were trained on."""

from __future__ import annotations

from dataclasses import dataclass

from samdeploy.arrays import Int64Array
from samdeploy.bundle import Bundle
from samdeploy.data.dataset import Samples
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
    is_imported,
    known_images,
    trained_on,
)


@dataclass(frozen=True, slots=True)
class Examined:
    """What is known of the test images.

    Attributes:
        hashes: of all of them.
        distinct: int64 [M], the first copy of each distinct one.
        test_images: the test set, counted.
        leaks: distinct ones that are in train or val; None where those are not known.
        faults: why no engine can pass on them.
    """

    hashes: ImageHashes
    distinct: Int64Array
    test_images: TestImages
    leaks: LeakReport | None
    faults: tuple[str, ...]


def examine(bundle: Bundle, samples: Samples, images: PreparedImages) -> Examined:
    """Examine all images of `images`, which holds distinct ones alone from then on.

    Raises:
        BundleError, DatasetError: the hashes of the bundle or of its run are damaged.
    """
    hashes = hash_images(images.batches(BATCH), samples.names, samples.labels)
    classes, known, distinct = bundle.spec.classes, known_images(bundle), distinct_images(hashes)
    images.keep(distinct)
    two_labels = find_two_labels(beside(known, hashes), classes, of="test")
    test_images = count_test_images(hashes, distinct, images.batches(BATCH), len(classes), two_labels)
    leaks = find_test_leaks(known, hashes.take(distinct))
    protocol = str(bundle.data.options.get("protocol", HONEST))
    return Examined(hashes, distinct, test_images, leaks, trained_on(leaks, protocol, imported=is_imported(bundle)))
