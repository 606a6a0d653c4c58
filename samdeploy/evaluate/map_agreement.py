"""Whether an engine looks where the trained network looks: rank correlation of class activation maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.backends.session import MapSession
from samdeploy.errors import InputError

# Enough for a median; every image costs two forward passes, one of them in PyTorch.
MAX_IMAGES = 64
# A map whose values differ by less than this share of the largest one is constant but for rounding: FP32 moves values
# by about 1e-6 of the range, and ranks among equals would be ranks of rounding errors.
CONSTANT = 1e-5
_BATCH = 16


@dataclass(frozen=True, slots=True)
class CamAgreement:
    """Spearman's rank correlation between two sets of maps.

    Attributes:
        images: images compared.
        defined: how many of them have a correlation; a map of one cell, or of equal values, has none.
        cells: (height, width) of a map.
        minimum, median: over the images that have one; None where none has.
    """

    images: int
    defined: int
    cells: tuple[int, int]
    minimum: float | None
    median: float | None

    @property
    def reason(self) -> str:
        """Why images have no correlation; "" where all have one."""
        if self.defined == self.images:
            return ""
        if self.cells[0] * self.cells[1] == 1:
            return "maps of one cell have no order; train at more than 32 pixels to have larger ones"
        return f"{self.images - self.defined} of {self.images} maps are constant and have no order"

    def to_json(self) -> dict[str, Any]:
        """As in eval.json."""
        return {
            "images": self.images,
            "defined": self.defined,
            "cells": list(self.cells),
            "min": self.minimum,
            "median": self.median,
            "reason": self.reason,
        }


def compare_cams(reference: MapSession, engine: MapSession, images: UInt8Array) -> CamAgreement:
    """Compare the maps of the class that the reference names, image by image.

    Args:
        reference: opened with `open_session(bundle, "pytorch", maps=True)`.
        engine: another session of the same bundle.
        images: uint8 [n, H, W, 3]; of more than `MAX_IMAGES` an evenly spread sample is taken.
    """
    sample = images[np.unique(np.linspace(0, len(images) - 1, min(MAX_IMAGES, len(images))).astype(np.intp))]
    expected, found = [], []
    for start in range(0, len(sample), _BATCH):
        batch = np.ascontiguousarray(sample[start : start + _BATCH])
        logits, maps = reference.run_with_maps(batch)
        top = logits.argmax(axis=1)
        rows = np.arange(len(batch))
        expected.append(maps[rows, top])
        found.append(engine.run_with_maps(batch)[1][rows, top])
    correlations = rank_correlation(np.concatenate(expected), np.concatenate(found))
    defined = correlations[~np.isnan(correlations)]
    return CamAgreement(
        images=len(sample),
        defined=len(defined),
        cells=(expected[0].shape[1], expected[0].shape[2]),
        minimum=float(defined.min()) if len(defined) else None,
        median=float(np.median(defined)) if len(defined) else None,
    )


def rank_correlation(cam_a: Float32Array, cam_b: Float32Array) -> NDArray[np.float64]:
    """Spearman's rank correlation of two maps, per image (`scipy.stats.spearmanr`: equal values share a rank).

    Args:
        cam_a, cam_b: float32 [n, h, w].

    Returns:
        float64 [n] in [-1, 1]; NaN where a map has fewer than two cells, is constant (see `CONSTANT`) or not finite:
        such a map has no order, and calling that agreement would hide a dead engine.

    Raises:
        InputError: the shapes differ.
    """
    from scipy.stats import spearmanr

    if cam_a.shape != cam_b.shape or cam_a.ndim != 3:
        raise InputError(f"maps: {list(cam_a.shape)} and {list(cam_b.shape)} found, [n, h, w] twice expected")
    result = np.full(len(cam_a), np.nan)
    for index, (a, b) in enumerate(zip(cam_a, cam_b, strict=True)):
        if _has_order(a) and _has_order(b):
            result[index] = spearmanr(a.ravel(), b.ravel()).statistic
    return result


def _has_order(cam: Float32Array) -> bool:
    return bool(np.isfinite(cam).all()) and float(np.ptp(cam)) > CONSTANT * float(np.abs(cam).max())
