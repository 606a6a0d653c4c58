"""Engine against trained network, image by image."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from samdeploy.arrays import BoolArray, Float32Array, Int64Array
from samdeploy.certainty.calibration import calibration_error
from samdeploy.evaluate.accuracy.facts import TOP, ImageFacts, image_facts
from samdeploy.evaluate.accuracy.paired import PairedDifference, mcnemar_p, paired_difference
from samdeploy.metrics import balanced_accuracy, class_figures, confusion_matrix, macro_f1

Int32Array = NDArray[np.int32]

DEFAULT_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class ClassAccuracy:
    """One class.

    Attributes:
        index, images: of the class, and its test images.
        top1, reference_top1: of engine and reference on them, in percent: their recall.
        precision: share of the engine's answers of this class that are right, 0 to 1.
        f1: of the engine, 0 to 1.
    """

    index: int
    images: int
    top1: float
    reference_top1: float
    precision: float
    f1: float


@dataclass(frozen=True, slots=True)
class PerImage:
    """What was said about each image.

    Attributes:
        labels: int32 [N], the truth.
        engine, reference: int32 [N], class with the highest logit; -1 for a row that is not finite.
        places: int64 [N], where in the test set each image is; None: there are no others.
    """

    labels: Int32Array
    engine: Int32Array
    reference: Int32Array
    places: Int64Array | None = None

    def place(self, row: int) -> int:
        """Where in the test set the image at `row` is."""
        return int(row if self.places is None else self.places[row])

    def changed(self) -> Int64Array:
        """Indices of the images for which the two name different classes: lost ones first, then gained, then others.

        int64 [M]; each kind in the images' order.
        """
        was_right, is_right = self.reference == self.labels, self.engine == self.labels
        kinds = (was_right & ~is_right, is_right & ~was_right, ~was_right & ~is_right & (self.engine != self.reference))
        return np.concatenate([np.flatnonzero(kind) for kind in kinds]).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two sets of logits for the same images differ.

    Attributes:
        top1, reference_top1: share of images whose highest logit is the label's, in percent.
        top1_agreement: share of images for which both name the same class, in percent.
        max_difference_of_range: the largest difference of a logit, as a share of its image's
            `samdeploy.backends.difference.image_ranges`; infinite if a logit is not finite; None if only classes
            are known.
        finite: whether every logit of the engine is a finite number.
        top5, reference_top5: share of images whose label is among the five highest logits, in percent; None where
            there are no more than five classes.
        change: of top-1, with its confidence interval, and the flips each way.
        mcnemar_p: see `paired.mcnemar_p`.
        ece, reference_ece: see `samdeploy.certainty.calibration`, in points; None where logits are not finite.
        balanced_accuracy, reference_balanced_accuracy: mean recall of the classes, in percent.
        macro_f1, reference_macro_f1: mean F1 of the classes, 0 to 1.
        classes: those with test images, in their order.
        per_image: the classes that both name.
    """

    top1: float
    reference_top1: float
    top1_agreement: float
    max_difference_of_range: float | None
    finite: bool
    top5: float | None
    reference_top5: float | None
    change: PairedDifference
    mcnemar_p: float
    ece: float | None
    reference_ece: float
    balanced_accuracy: float
    reference_balanced_accuracy: float
    macro_f1: float
    reference_macro_f1: float
    classes: tuple[ClassAccuracy, ...]
    per_image: PerImage = field(repr=False, compare=False)

    def worst_class(self) -> ClassAccuracy:
        """The class that loses most; of several, the one with the lowest top-1."""
        return min(self.classes, key=lambda found: (found.top1 - found.reference_top1, found.top1))


def compare(
    logits: Float32Array,
    reference: Float32Array,
    labels: Int64Array,
    *,
    confidence: float = DEFAULT_CONFIDENCE,
    places: Int64Array | None = None,
    temperature: float = 1.0,
) -> Comparison:
    """Compare an engine's logits with the reference's.

    Args:
        logits, reference: float32 [N, K], for the same images in the same order; the reference's are finite, N >= 1.
        labels: int64 [N].
        confidence: of the interval, in (0, 1).
        places: see `PerImage`.
        temperature: of the probabilities.
    """
    facts = image_facts(logits, reference, labels, temperature)
    return compare_facts(facts, logits.shape[1], confidence=confidence, places=places)


def compare_facts(
    facts: ImageFacts, n_classes: int, *, confidence: float = DEFAULT_CONFIDENCE, places: Int64Array | None = None
) -> Comparison:
    """Compare an engine with the reference, by what is kept of their answers.

    Args:
        facts: of at least one image.
        n_classes: of the network.
        confidence: of the interval, in (0, 1).
        places: see `PerImage`.
    """
    labels, chosen, expected = facts.labels, facts.engine, facts.reference
    is_right, was_right = chosen == labels, expected == labels
    engine_confusion, reference_confusion = (
        confusion_matrix(labels, answers, n_classes) for answers in (chosen, expected)
    )
    lost, gained = int((was_right & ~is_right).sum()), int((is_right & ~was_right).sum())
    has_top5 = n_classes > TOP
    return Comparison(
        top1=percent_of(is_right),
        reference_top1=percent_of(was_right),
        top1_agreement=percent_of(chosen == expected),
        max_difference_of_range=float(facts.shares().max()) if facts.from_logits else None,
        finite=facts.finite,
        top5=percent_of(facts.top5) if has_top5 else None,
        reference_top5=percent_of(facts.reference_top5) if has_top5 else None,
        change=paired_difference(lost, gained, len(labels), confidence),
        mcnemar_p=mcnemar_p(lost, gained),
        ece=calibration_error(facts.sure, is_right) if facts.finite else None,
        reference_ece=calibration_error(facts.reference_sure, was_right),
        balanced_accuracy=balanced_accuracy(engine_confusion),
        reference_balanced_accuracy=balanced_accuracy(reference_confusion),
        macro_f1=macro_f1(engine_confusion),
        reference_macro_f1=macro_f1(reference_confusion),
        classes=per_class(engine_confusion, reference_confusion),
        per_image=PerImage(labels.astype(np.int32), chosen.astype(np.int32), expected.astype(np.int32), places),
    )


def percent_of(hits: BoolArray) -> float:
    """The share of True in bool [N], N >= 1, in percent."""
    # From integers: 100 * mean would give 99.99999999999999 for a perfect score of some sizes.
    return 100 * int(hits.sum()) / len(hits)


def per_class(confusion: Int64Array, reference: Int64Array) -> tuple[ClassAccuracy, ...]:
    """Of the classes with images, from the confusion matrices of engine and reference."""
    found, other = class_figures(confusion), class_figures(reference)
    return tuple(
        ClassAccuracy(
            int(index),
            int(found.support[index]),
            100 * float(found.recall[index]),
            100 * float(other.recall[index]),
            float(found.precision[index]),
            float(found.f1[index]),
        )
        for index in np.flatnonzero(found.support)
    )
