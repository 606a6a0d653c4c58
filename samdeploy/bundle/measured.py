"""What training measured of a bundle's network: later figures on the same images must agree with it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from samdeploy.bundle.fields import Fields, short
from samdeploy.bundle.spec import ModelSpec
from samdeploy.bundle.spec_json import preprocessing_to_json


@dataclass(frozen=True, slots=True)
class MeasuredSplit:
    """Accuracy on one split, and which images those were.

    Attributes:
        top1: in percent.
        images: how many.
        images_sha256, labelled_sha256: of the prepared images as a set, without and with their labels; see
            `samdeploy.data.duplicates.image_hashes.set_hashes`.
    """

    top1: float
    images: int
    images_sha256: str
    labelled_sha256: str


@dataclass(frozen=True, slots=True)
class Measured:
    """
    Attributes:
        model_sha256: of architecture, classes and preprocessing as trained, see `model_sha256`.
        weights_sha256: of weights.safetensors.
        epoch: whose weights these are, from 1.
        val: the split that chose the epoch.
        test: None where the training did not come to its end.
    """

    model_sha256: str
    weights_sha256: str
    epoch: int
    val: MeasuredSplit
    test: MeasuredSplit | None


def model_sha256(spec: ModelSpec) -> str:
    """SHA-256 of `arch`, `options`, `classes` and `preprocessing`: compact JSON with sorted keys, in ASCII."""
    values = {
        "arch": spec.arch,
        "options": dict(spec.options),
        "classes": list(spec.classes),
        "preprocessing": preprocessing_to_json(spec.preprocessing),
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def measured_to_json(measured: Measured) -> dict[str, Any]:
    return {
        "model_sha256": measured.model_sha256,
        "weights_sha256": measured.weights_sha256,
        "epoch": measured.epoch,
        "val": _split_to_json(measured.val),
        "test": _split_to_json(measured.test) if measured.test else None,
    }


def measured_from_fields(fields: Fields) -> Measured:
    """Read the object that `measured_to_json` made; problems are reported when `fields` is closed."""
    test = fields.section_or_none("test")
    return Measured(
        model_sha256=_sha256(fields, "model_sha256"),
        weights_sha256=_sha256(fields, "weights_sha256"),
        epoch=fields.integer("epoch"),
        val=_split(fields.section("val")),
        test=_split(test) if test is not None else None,
    )


def _split_to_json(split: MeasuredSplit) -> dict[str, Any]:
    return {
        "top1": split.top1,
        "images": split.images,
        "images_sha256": split.images_sha256,
        "labelled_sha256": split.labelled_sha256,
    }


def _split(fields: Fields) -> MeasuredSplit:
    split = MeasuredSplit(
        fields.number("top1"), fields.integer("images"), _sha256(fields, "images_sha256"),
        _sha256(fields, "labelled_sha256"),
    )  # fmt: skip
    if not 0 <= split.top1 <= 100:
        fields.report(f"top1 {short(split.top1)} found, 0 to 100 expected")
    return split


def _sha256(fields: Fields, key: str) -> str:
    value = fields.text(key)
    if fields.has(key) and (len(value) != 64 or set(value) - set("0123456789abcdef")):
        fields.report(f"{key} {short(value)} found, 64 lower-case hexadecimal digits expected")
    return value
