"""Images that are there more than once, and images under more than one label.

Two images are copies where their prepared pixels are equal, whatever their files are called and however they are
stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from samdeploy.arrays import Int64Array, UInt64Array
from samdeploy.data.duplicates.image_hashes import ImageHashes

_EXAMPLES = 3


def first_copies(digests: UInt64Array) -> Int64Array:
    """For each image, the index of the first image with the same digest: its own if none came before.

    Args:
        digests: uint64 [N, M], equal where the images are.

    Returns:
        int64 [N].
    """
    order = np.lexsort(digests.T)  # stable: of equal ones the first comes first
    in_order = digests[order]
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = (in_order[1:] != in_order[:-1]).any(axis=1)
    first = np.empty(len(order), np.int64)
    first[order] = order[is_new][np.cumsum(is_new) - 1]
    return first


@dataclass(frozen=True, slots=True)
class TwoLabels:
    """The images that are labelled with more than one class.

    Attributes:
        images: how many; copies of one image count once.
        examples: a few, each as (name, class, name of a copy, its class).
    """

    images: int
    examples: tuple[tuple[str, str, str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As in leaks.json and eval.json; see docs/files.md."""
        keys = ("name", "label", "other", "other_label")
        return {"images": self.images, "examples": [dict(zip(keys, row, strict=True)) for row in self.examples]}

    def lines(self) -> tuple[str, ...]:
        """For people: what is wrong and the cure; empty where nothing is."""
        if not self.images:
            return ()
        pairs = "; ".join(
            f"{name} ({label!r}) = {other} ({other_label!r})" for name, label, other, other_label in self.examples
        )
        counted = f"{self.images:,} images have" if self.images > 1 else "1 image has"
        return (f"{counted} two labels: {pairs}. Keep each image in one class only, and remove its other copies",)


def find_two_labels(splits: Mapping[str, ImageHashes], classes: Sequence[str], *, of: str = "") -> TwoLabels:
    """Images whose copies, in the same split or in another one, have another label.

    Args:
        splits: name -> its images; splits that are one and the same may stand under two names.
        classes: index -> name.
        of: only images of this split; "": of any.
    """
    if of:  # first, so that it is named: of the others a bundle knows no names
        splits = {of: splits[of], **splits}
    digests = np.concatenate([found.digests for found in splits.values()])
    labels = np.concatenate([found.labels for found in splits.values()])
    first = first_copies(digests)
    differs = (labels >= 0) & (labels[first] >= 0) & (labels != labels[first])
    if of:
        differs &= np.isin(first, first[: len(splits[of])])
    others = np.flatnonzero(differs)
    _, places = np.unique(first[others], return_index=True)
    starts = np.cumsum([0, *map(len, splits.values())])

    def name(index: int) -> str:
        split = int(np.searchsorted(starts, index, side="right")) - 1
        return list(splits.values())[split].names[int(index - starts[split])]

    examples = tuple(
        (name(one), classes[labels[one]], name(other), classes[labels[other]])
        for other in others[np.sort(places)[:_EXAMPLES]]
        for one in [first[other]]
    )
    return TwoLabels(len(places), examples)
