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
    classes, known, kept = bundle.spec.classes, known_images(bundle), not_looked_at(bundle, hashes)
    judged = hashes.take(kept)
    first = distinct_images(judged)
    images.keep(kept[first])
    two_labels = find_two_labels(beside(known, judged), classes, of="test")
    test_images = count_test_images(judged, first, images.batches(BATCH), len(classes), two_labels)
    leaks = find_test_leaks(known, judged.take(first))
    faults = trained_on(leaks, str(bundle.data.options.get("protocol", HONEST)), imported=is_imported(bundle))
    return Examined(hashes, kept[first], left_out(kept, hashes), test_images, leaks, faults)
