"""From logits to answers: softmax, order, and what is said where the logits are no numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from samdeploy.arrays import Float32Array, Float64Array
from samdeploy.bundle import Bundle
from samdeploy.errors import AnswerError


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one image.

    Attributes:
        label: name of the most probable class.
        index: its column in the logits.
        probability: its softmax value with the temperature of the bundle, in [0, 1].
        top: (class, probability) of the most probable classes, best first.
        logits: float32 [K], as the engine gave them; two predictions may be equal without them.
        rejected: whether `probability` is below the threshold that the bundle was exported with: the answer is too
            often wrong to act on.  False where it has none.
    """

    label: str
    index: int
    probability: float
    top: tuple[tuple[str, float], ...]
    logits: Float32Array = field(compare=False)
    rejected: bool = False

    def to_json(self) -> dict[str, Any]:
        """What `json.dumps` takes: the object that ``samdeploy predict --json`` writes, but for its "image"."""
        return {
            "label": self.label,
            "index": self.index,
            "probability": self.probability,
            "rejected": self.rejected,
            "top": [{"label": label, "probability": probability} for label, probability in self.top],
        }


def rank(logits: Float32Array, bundle: Bundle, precision: str, top: int) -> list[Prediction | AnswerError]:
    """The answer to each image, or why there is none.

    Args:
        logits: float32 [N, K].
        bundle: its classes, temperature and threshold.
        precision: of the engine that gave the logits, for the cure in an AnswerError.
        top: how many classes an answer names, at most.
    """
    answers: list[Prediction | AnswerError] = []
    if np.isfinite(logits).all():
        answers += _finite(logits, bundle, top)
        return answers
    for row in logits:
        error = not_finite(row, precision)
        answers += [error] if error else _finite(row[None], bundle, top)
    return answers


def softmax(logits: Float32Array, temperature: float = 1.0) -> Float64Array:
    """``exp((x - max) / temperature) / sum`` over the last axis, in float64, to the last bit as C++ computes it."""
    shifted = (logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)) / temperature
    exponentials = np.empty_like(shifted)
    # numpy's own exp differs from the C library's in the last bit, and its sum adds in pairs.
    for row, values in zip(
        exponentials.reshape(-1, shifted.shape[-1]), shifted.reshape(-1, shifted.shape[-1]), strict=True
    ):
        row[:] = list(map(math.exp, values.tolist()))
    result: Float64Array = exponentials / exponentials.cumsum(axis=-1)[..., -1:]
    return result


def not_finite(logits: Float32Array, precision: str) -> AnswerError | None:
    """What is said of an image whose logits, float32 [K], name no class; None where all are finite."""
    unusable = int((~np.isfinite(logits)).sum())
    if not unusable:
        return None
    cure = "the network has no answer to it" if precision == "fp32" else "open the bundle in fp32"
    return AnswerError(
        f"{unusable} of {len(logits)} logits are not finite numbers: the image drives the network out of the range "
        f"of {precision}; {cure}"
    )


def _finite(logits: Float32Array, bundle: Bundle, top: int) -> list[Prediction]:
    classes, probabilities = bundle.spec.classes, softmax(logits, bundle.temperature)
    # Stable: of equal logits the lower index comes first, in every language that sorts stably.
    order = np.argsort(-logits, axis=1, kind="stable")[:, :top]
    best = np.take_along_axis(probabilities, order, axis=1)
    return [
        Prediction(
            label=classes[indices[0]],
            index=indices[0],
            probability=shares[0],
            top=tuple((classes[index], share) for index, share in zip(indices, shares, strict=True)),
            logits=row.copy(),
            rejected=shares[0] < bundle.threshold,
        )
        for row, indices, shares in zip(logits, order.tolist(), best.tolist(), strict=True)
    ]
