"""What the test images are worth as evidence: copies, classes without any, two labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from samdeploy.arrays import Int64Array
from samdeploy.data.copies import TwoLabels, first_copies
from samdeploy.data.likeness import NEAR_BITS, find_likenesses
from samdeploy.data.picture_hashes import PictureHashes
from samdeploy.progress import progress_bar

# Of so many images the headline says how few they are.
FEW = 100
# Percent of the distinct images that may look like another one before the headline says so.
NEAR_PERCENT = 2.0
# Likenesses are looked for among so many images: 2.5e9 pairs, some seconds.
_MOST_COMPARED = 50_000


@dataclass(frozen=True, slots=True)
class TestImages:
    """The test set, counted.

    Attributes:
        images: in the test set.
        distinct: with different prepared pixels; every figure counts each of them once.
        near: distinct ones that look like an earlier one; None where there are too many to compare.
        near_example: (name, name) of the nearest; None without any.
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
        return {
            "images": self.images,
            "distinct": self.distinct,
            "near": self.near,
            "near_bits": NEAR_BITS,
            "classes": self.classes,
            "classes_seen": self.classes_seen,
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
            yield f"{self.two_labels.images:,} test images have two labels"

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


def count_test_images(hashes: PictureHashes, classes: int, two_labels: TwoLabels) -> tuple[TestImages, Int64Array]:
    """The test set counted, and the index of the first copy of each distinct image, int64 [M] in order.

    Args:
        hashes: of all test images.
        classes: of the network.
        two_labels: see `TestImages`.
    """
    distinct = np.flatnonzero(first_copies(hashes.digests) == np.arange(len(hashes)))
    once = hashes.take(distinct) if len(distinct) < len(hashes) else hashes
    near = _near(once) if len(once) <= _MOST_COMPARED else None
    example = min(near, key=lambda found: found[2]) if near else None
    return (
        TestImages(
            images=len(hashes),
            distinct=len(once),
            near=None if near is None else len(near),
            near_example=example and (once.names[example[0]], once.names[example[1]]),
            classes=classes,
            classes_seen=len(np.unique(hashes.labels)),
            two_labels=two_labels,
        ),
        distinct,
    )


def _near(hashes: PictureHashes) -> Sequence[tuple[int, int, int]]:
    with progress_bar("looking for likenesses", len(hashes)) as advance:
        return list(find_likenesses(hashes.perceptual, hashes.perceptual, advance, earlier=True))
