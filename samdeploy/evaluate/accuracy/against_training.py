"""The trained network's accuracy here, beside the one that training measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from samdeploy.arrays import Int64Array, UInt64Array
from samdeploy.bundle import Bundle
from samdeploy.bundle.fields import to_json
from samdeploy.data.duplicates.image_hashes import set_hashes

# Training measured the same weights on the same images, in FP32 too, but maybe on another device and in other batches.
# That moves logits by 1e-6 of their range, by 1e-3 where a GPU multiplied in TF32, and only images whose two best
# classes are closer than that can change: a few of 10,000.
ALLOWED_POINTS = 0.2


@dataclass(frozen=True, slots=True)
class AgainstTraining:
    """
    Attributes:
        same_images, same_labels: whether the test images, and they with their labels, are those that training measured.
        top1, images: of the trained network here; percent, and how many.
        measured_top1, measured_images: the same, as training measured.
    """

    same_images: bool
    same_labels: bool
    top1: float
    images: int
    measured_top1: float
    measured_images: int

    @property
    def fault(self) -> str:
        """Why the evaluation proves nothing; "" where the figures agree, or are of other images."""
        if not self.same_images:
            return ""
        if not self.same_labels:
            return (
                "the test images are those that training measured, their labels are not (PyTorch's top-1: "
                f"{self._both}); put the labels back, or train again"
            )
        if abs(self.top1 - self.measured_top1) <= max(ALLOWED_POINTS, 100 / self.images) + 1e-9:
            return ""
        return (
            f"PyTorch's top-1 on the test images that training measured is {self._both}: weights, classes or "
            "preprocessing are not those that were trained; make the bundle again: samdeploy export RUN"
        )

    @property
    def remark(self) -> str:
        """What the verdict must not be read without; "" for the images that training measured."""
        return "" if self.same_images else f"other test images than training measured: PyTorch's top-1 is {self._both}"

    @property
    def _both(self) -> str:
        return f"{self.top1:.2f} %, {self.measured_top1:.2f} % at training"

    def to_json(self) -> dict[str, Any]:
        """As in eval.json."""
        return {name: value for name, value in to_json(self).items() if name != "images"}


def compare_with_training(
    bundle: Bundle, digests: UInt64Array, labels: Int64Array, answers: Int64Array
) -> AgainstTraining | None:
    """None where the bundle does not say what training measured on its test images.

    Args:
        digests: uint64 [N, 2] of all test images, copies included, from `image_hashes.digests_of`.
        labels: int64 [N].
        answers: int64 [N], the classes that the trained network names.
    """
    measured = bundle.measured.test if bundle.measured is not None else None
    if measured is None:
        return None
    images, labelled = set_hashes(digests, labels)
    return AgainstTraining(
        same_images=images == measured.images_sha256,
        same_labels=labelled == measured.labelled_sha256,
        top1=100 * float(np.mean(answers == labels)),
        images=len(labels),
        measured_top1=measured.top1,
        measured_images=measured.images,
    )


# Of an evaluation, where `not_recorded` says why.
NOT_COMPARED = "not compared with the accuracy at training, which the bundle does not record"


def not_recorded(bundle: Bundle) -> str:
    """Why a bundle cannot be compared with its training; "" where it can, and where there was none here."""
    if bundle.is_imported:
        return ""
    if bundle.measured is None:
        return "what training measured is not recorded in this bundle; train and export again"
    return "" if bundle.measured.test else "training did not come to its test, so there is no figure to compare with"
