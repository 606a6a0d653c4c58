"""What is kept of each image's two answers: 80 bytes, of which every figure is made.

The logits of a million images and a thousand classes take 4 GB.  Facts are made of one block of them after the other,
by several machines or out of files, and put together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from samdeploy.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from samdeploy.backends.difference import with_median_floor
from samdeploy.certainty.calibration import confidence, log_losses

TOP = 5
# Rows that are sorted together: of a large test set, not more than the logits themselves stand in memory.
_ROWS = 4096


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """N images, one value of each array for each.

    Attributes:
        labels: int64, the truth.
        engine: int64, class with the highest logit; -1 where a logit is not finite.
        reference: int64, likewise; never -1.
        top5, reference_top5: bool, whether the label is among the five highest logits.
        sure, reference_sure: float64, the highest probability, with the temperature; NaN where `engine` is -1.
        raw_sure: float64, that of the engine without the temperature.
        nll, raw_nll: float64, the engine's negative log-likelihood of the label in nats, with and without it.
        difference: float64, the largest difference of a logit; infinite where `engine` is -1.
        spread: float64, largest minus smallest logit of the reference.

    Where only classes and probabilities are known, the last five are NaN.
    """

    labels: Int64Array
    engine: Int64Array
    reference: Int64Array
    top5: BoolArray
    reference_top5: BoolArray
    sure: Float64Array
    reference_sure: Float64Array
    raw_sure: Float64Array
    nll: Float64Array
    raw_nll: Float64Array
    difference: Float64Array
    spread: Float64Array

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def finite(self) -> bool:
        """Whether every logit of the engine is a finite number."""
        return bool((self.engine >= 0).all())

    @property
    def from_logits(self) -> bool:
        """Whether all logits were known."""
        return not np.isnan(self.spread).any()

    def shares(self) -> Float64Array:
        """float64 [N]: `difference` as a share of the image's scale, see `difference.image_ranges`."""
        return self.difference / with_median_floor(self.spread)

    def take(self, rows: Int64Array) -> ImageFacts:
        """Those at `rows`, int64 [M], in that order."""
        return replace(self, **{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @classmethod
    def joined(cls, parts: Sequence[ImageFacts]) -> ImageFacts:
        """One after the other; at least one."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def image_facts(
    logits: Float32Array, reference: Float32Array, labels: Int64Array, temperature: float = 1.0
) -> ImageFacts:
    """The facts of two classifiers' logits.

    Args:
        logits, reference: float32 [N, K], for the same images in the same order; the reference's are finite.
        labels: int64 [N].
        temperature: of the probabilities.
    """
    chosen = chosen_classes(logits)
    known = chosen >= 0
    of_engine = [np.full(len(labels), np.nan) for _ in range(4)]
    for found, measured in zip(of_engine, _certainty(logits[known], labels[known], temperature), strict=True):
        found[known] = measured
    sure, raw_sure, nll, raw_nll = of_engine
    return ImageFacts(
        labels=labels.astype(np.int64),
        engine=chosen,
        reference=reference.argmax(axis=1).astype(np.int64),
        top5=_top5(logits, labels) & known,
        reference_top5=_top5(reference, labels),
        sure=sure,
        reference_sure=confidence(reference, temperature),
        raw_sure=raw_sure,
        nll=nll,
        raw_nll=raw_nll,
        difference=_differences(logits, reference),
        spread=logit_spread(reference),
    )


def chosen_classes(logits: Float32Array) -> Int64Array:
    """int64 [N]: the class with the highest logit of each row of float32 [N, K]; -1 for a row that is not finite."""
    # argmax takes NaN for the highest value.
    return np.where(np.isfinite(logits).all(axis=1), logits.argmax(axis=1), -1)


def logit_spread(logits: Float32Array) -> Float64Array:
    """float64 [N]: largest minus smallest of each row of float32 [N, K], finite."""
    spread: Float64Array = logits.max(axis=1).astype(np.float64) - logits.min(axis=1)
    return spread


def _certainty(logits: Float32Array, labels: Int64Array, temperature: float) -> Iterator[Float64Array]:
    if not len(labels):
        yield from [np.empty(0)] * 4
        return
    for each in (temperature, 1.0):
        yield confidence(logits, each)
    for each in (temperature, 1.0):
        yield log_losses(logits, labels, each)


def _differences(logits: Float32Array, reference: Float32Array) -> Float64Array:
    found = np.empty(len(reference))
    for part in _parts(len(found)):
        with np.errstate(invalid="ignore"):  # infinite minus finite
            found[part] = np.abs(logits[part].astype(np.float64) - reference[part]).max(axis=1)
    found[~np.isfinite(found)] = np.inf
    return found


def _top5(logits: Float32Array, labels: Int64Array) -> BoolArray:
    hits = np.zeros(len(labels), np.bool_)
    for part in _parts(len(labels)):
        rows, label = logits[part], labels[part, None]
        own = np.take_along_axis(rows, label, axis=1)
        # Of equal logits the first counts as the higher one, as argmax has it.
        before = (rows > own) | ((rows == own) & (np.arange(rows.shape[1]) < label))
        hits[part] = before.sum(axis=1) < TOP
    return hits


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + _ROWS) for start in range(0, count, _ROWS))
