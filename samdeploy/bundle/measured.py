"""What training measured of a bundle's network: later figures on the same images must agree with it."""

# Annotations are types and not texts here: the reader looks at them, and that is quicker.

import hashlib
import json
from dataclasses import dataclass, field

from samdeploy.bundle.annotations import SHA256, Rules
from samdeploy.bundle.fields import to_json
from samdeploy.bundle.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class MeasuredSplit:
    """Accuracy on one split, and which images those were.

    Attributes:
        top1: in percent.
        images: how many.
        images_sha256, labelled_sha256: of the prepared images as a set, without and with their labels; see
            `samdeploy.data.duplicates.image_hashes.set_hashes`.
    """

    top1: float = field(metadata=Rules(at_least=0, at_most=100))
    images: int
    images_sha256: str = field(metadata=SHA256)
    labelled_sha256: str = field(metadata=SHA256)


@dataclass(frozen=True, slots=True)
class Measured:
    """
    Attributes:
        model_sha256: of architecture, classes and preprocessing as trained, see `model_sha256`.
        weights_sha256: of weights.safetensors.
        epoch: whose weights these are, from 1; 0 where they were imported.
        val: the split that chose the epoch; None where a network was imported without images.
        test: None where the training did not come to its end.
    """

    model_sha256: str = field(metadata=SHA256)
    weights_sha256: str = field(metadata=SHA256)
    epoch: int
    val: MeasuredSplit | None
    test: MeasuredSplit | None


def model_sha256(spec: ModelSpec) -> str:
    """SHA-256 of `arch`, `options`, `classes` and `preprocessing`: compact JSON with sorted keys, in ASCII."""
    values = to_json({name: getattr(spec, name) for name in ("arch", "options", "classes", "preprocessing")})
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
