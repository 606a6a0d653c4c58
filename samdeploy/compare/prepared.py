"""The images as each network takes them, copies left out, and which of them it was trained on."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import numpy as np

from samdeploy.arrays import Int64Array
from samdeploy.bundle.spec import Preprocessing
from samdeploy.compare.images import ImageSet
from samdeploy.compare.sides import Side
from samdeploy.data.cache import stream_prepared
from samdeploy.data.duplicates.copies import find_two_labels, first_copies
from samdeploy.data.duplicates.image_hashes import ImageHashes, hash_images
from samdeploy.data.duplicates.leaks import LeakReport
from samdeploy.data.protocol import HONEST
from samdeploy.data.stream import stream_images
from samdeploy.errors import ImageError
from samdeploy.evaluate.passes import BATCH
from samdeploy.evaluate.test_set.prepared import PreparedImages
from samdeploy.evaluate.test_set.seen_in_training import (
    find_test_leaks,
    known_images,
    left_out,
    not_looked_at,
    trained_on,
)
from samdeploy.images.unreadable import Unread


@dataclass(frozen=True, slots=True)
class PreparedSide:
    """The compared images for one network.

    Attributes:
        images: at its size.
        leaks: which of them are in its train and val; None where the bundle does not know.
        faults: why they prove nothing about it: too many were trained on.
    """

    images: PreparedImages
    leaks: LeakReport | None
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """The images that are compared.

    Attributes:
        sides: A's and B's.
        places: int64 [N], where in the image set each is.
        copies: images left out because an earlier one has the same pixels for both networks.
        unreadable: of images without labels: what cannot be read, and why.
        notes: what there is to say about them.
    """

    sides: tuple[PreparedSide, PreparedSide]
    places: Int64Array
    copies: int
    unreadable: tuple[str, ...]
    notes: tuple[str, ...]


def prepare_images(images: ImageSet, a: Side, b: Side, stack: ExitStack) -> Prepared:
    """Decode all images, for both networks at once where they take the same size; `stack` gives the disk space back.

    Labelled images must all be readable: they make one figure.  Of others those that cannot be read are named on
    standard error and left out.

    Raises:
        DatasetError: labelled images cannot be read, or the disk has no room.
        ImageError: not one could be read.
    """
    broken: dict[int, str] = {}
    first = _decoded(images, a.bundle.spec.preprocessing, broken, stack)
    is_shared = _same_pixels(a.bundle.spec.preprocessing, b.bundle.spec.preprocessing)
    second = first if is_shared else _decoded(images, b.bundle.spec.preprocessing, broken, stack)
    unreadable = (*images.problems, *(broken[index] for index in sorted(broken)))
    unread = Unread()
    for text in unreadable:
        unread.add(ImageError(text))
    unread.none_of(len(images.samples) + len(images.problems))
    names, labels = images.samples.names, images.samples.labels
    hashes = [hash_images(kept.batches(BATCH), names, labels) for kept in ((first,) if is_shared else (first, second))]
    readable = np.setdiff1d(np.arange(len(names)), np.fromiter(broken, np.int64, len(broken)))
    digests = np.concatenate([found.digests for found in hashes], axis=1)[readable]
    places = readable[first_copies(digests) == np.arange(len(readable))]
    copies, notes = len(readable) - len(places), list(images.notes)
    for side, found in ((a, hashes[0]), (b, hashes[-1])):
        compared = found.take(places)
        unknown = not_looked_at(side.bundle, compared)
        notes += [f"{side.name}: {text}" for text in left_out(unknown, compared)]
        places = places[unknown]
    for kept in (first,) if is_shared else (first, second):
        kept.keep(places)
    two_labels = find_two_labels({"images": hashes[0].take(readable)}, a.classes).lines() if images.is_labelled else ()
    sides = _side(a, first, hashes[0].take(places)), _side(b, second, hashes[-1].take(places))
    return Prepared(sides, places, copies, unreadable, (*notes, *two_labels))


def _decoded(
    images: ImageSet, preprocessing: Preprocessing, broken: dict[int, str], stack: ExitStack
) -> PreparedImages:
    samples = images.samples
    kept = stack.enter_context(PreparedImages(len(samples), preprocessing.height, preprocessing.width))
    if images.is_labelled:
        blocks = stream_prepared(samples, preprocessing, description="images", block=BATCH)
    else:
        blocks = stream_images(samples, preprocessing, description="images", block=BATCH, unreadable=broken)
    with closing(blocks):
        for block in blocks:
            kept.append(block)
    return kept


def _same_pixels(one: Preprocessing, other: Preprocessing) -> bool:
    """Whether both make the same bytes of an image: mean and spread are applied in the network."""
    return replace(one, mean=other.mean, std=other.std) == other


def _side(side: Side, images: PreparedImages, hashes: ImageHashes) -> PreparedSide:
    leaks = find_test_leaks(known_images(side.bundle), hashes)
    protocol = str(side.bundle.data.options.get("protocol", HONEST))
    return PreparedSide(images, leaks, trained_on(leaks, protocol, imported=side.bundle.is_imported))
