"""What the test images are worth as evidence: copies, classes without any, two labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from samdeploy.arrays import Float32Array, Int64Array
from samdeploy.data.duplicates.alike import find_alike
from samdeploy.data.duplicates.copies import TwoLabels, first_copies
from samdeploy.data.duplicates.image_hashes import ImageHashes
from samdeploy.progress import progress_bar

# Of so many images the headline says how few they are.
FEW = 100
# Percent of the distinct images that may look like another one before the headline says so.
NEAR_PERCENT = 2.0
# Likenesses are looked for among so many images: 1.25e9 pairs, some seconds.
MOST_COMPARED = 50_000


@dataclass(frozen=True, slots=True)
class TestImages:
    """The test set, counted.

    Attributes:
        images: in the test set.
        distinct: with different prepared pixels; every figure counts each of them once.
        near: distinct ones that look like an earlier one, see `samdeploy.data.duplicates.alike`; None where too many
            to compare, or not at hand.
        near_example: (name, name) of two such; None without any.
        classes, classes_seen: of the network, and those with a test image.
        two_labels: test images with another label in the test set, or where they were trained on.
    """

    # pytest would take the name for a class of tests.
    __test__ = False

    images: int
    distinct: int
    near: int | None
    near_example: tuple[str, str] | None
    classes: int
    classes_seen: int
    two_labels: TwoLabels

    def to_json(self) -> dict[str, Any]:
        """As in eval.json; see docs/files.md."""
        counts = ("images", "distinct", "near", "classes", "classes_seen")
        return {
            **{name: getattr(self, name) for name in counts},
            "two_labels": self.two_labels.to_json(),
            "remarks": list(self.headline()),
        }

    def headline(self) -> Iterator[str]:
        """What the verdict must not be read without; nothing for an ordinary test set."""
        if self.distinct < self.images:
            yield f"{self.images:,} test images, {self.distinct:,} distinct"
        elif self.images < FEW:
            yield f"only {self.images} test images"
        if self.near is not None and 100 * self.near > NEAR_PERCENT * self.distinct:
            yield f"{self.near:,} test images look like another one"
        if self.classes_seen < self.classes:
            yield f"test images of {self.classes_seen:,} of {self.classes:,} classes only"
        if self.two_labels.images:
            found = self.two_labels.images
            yield f"{found:,} test image{'s have' if found != 1 else ' has'} two labels"

    def notes(self) -> Iterator[str]:
        """The same in sentences, with examples."""
        if self.distinct < self.images:
            yield (
                f"{self.images - self.distinct:,} of {self.images:,} test images are copies of another one, pixel by "
                "pixel; every figure counts an image once"
            )
        if self.near and self.near_example:
            one, other = self.near_example
            yield (
                f"{self.near:,} of {self.distinct:,} distinct test images look like another one, for example {one} ~ "
                f"{other}; where they are resaved copies, the intervals are too narrow"
            )
        yield from self.two_labels.lines()


def distinct_images(hashes: ImageHashes) -> Int64Array:
    """The index of the first copy of each distinct image, int64 [M], in order."""
    return np.flatnonzero(first_copies(hashes.digests) == np.arange(len(hashes)))


def count_test_images(
    hashes: ImageHashes,
    distinct: Int64Array,
    small: Callable[[], Float32Array] | None,
    classes: int,
    two_labels: TwoLabels,
) -> TestImages:
    """The test set, counted.

    Args:
        hashes: of all test images.
        distinct: from `distinct_images`.
        small: the distinct images' `alike.thumbnails`, float32 [M, 64]; None: not known.
        classes: of the network.
        two_labels: see `TestImages`.
    """
    alike = None
    if small is not None and len(distinct) <= MOST_COMPARED:
        with progress_bar("looking for likenesses", len(distinct)) as advance:
            alike = find_alike(small(), advance)
    example = None
    if alike is not None and len(alike):
        one, other = distinct[alike[0]]
        example = hashes.names[one], hashes.names[other]
    return TestImages(
        images=len(hashes),
        distinct=len(distinct),
        near=None if alike is None else len(alike),
        near_example=example,
        classes=classes,
        classes_seen=len(np.unique(hashes.labels)),
        two_labels=two_labels,
    )
