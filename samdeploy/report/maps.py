"""Class activation maps of a few test images, as an engine computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from samdeploy.arrays import UInt8Array
from samdeploy.backends.registry import open_first
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable
from samdeploy.explain.region import place_map, seen_region
from samdeploy.images.decode import resize
from samdeploy.ranking import softmax
from samdeploy.report.thumbnail import SIDE, Thumbnail, thumbnail


@dataclass(frozen=True, slots=True)
class ImageMap:
    """One image and the map of its most probable class.

    Attributes:
        index: of the test image.
        label, named: its class, and the one that the engine names.
        probability: of `named`, in percent.
        drawn: the image with the map over it.
    """

    index: int
    label: str
    named: str
    probability: float
    drawn: Thumbnail


@dataclass(frozen=True, slots=True)
class MapSheet:
    """Maps and the engine that computed them; `cells`: (height, width) of a map."""

    engine: str
    cells: tuple[int, int]
    maps: tuple[ImageMap, ...]


def draw_maps(bundle: Bundle, images: Sequence[UInt8Array], indices: Sequence[int], labels: Sequence[str]) -> MapSheet:
    """Compute and draw the maps of test images, on the CPU: a few are enough, and every machine has one.

    Args:
        images: uint8 [h, w, 3] each, at their original sizes.
        indices, labels: of the same images.

    Raises:
        BackendUnavailable: no runtime computes maps here, or a map has one cell only.
        BundleError: a file was changed, or the maps are not the network's.
        ImageError: an image is too long and thin.
        ModuleNotFoundError: matplotlib is not installed.
    """
    from samdeploy.explain.overlay import overlay

    preprocessing = bundle.spec.preprocessing
    batch = np.stack([resize(image, preprocessing) for image in images])
    with open_first(bundle, device="cpu", maps=True)[0] as session:
        logits, maps = session.run_with_maps(batch)
        engine = f"{session.backend} {session.precision}"
    if maps.shape[2] * maps.shape[3] == 1:
        raise BackendUnavailable(
            f"at {preprocessing.height}x{preprocessing.width} pixels a map is one cell, which says nothing "
            "about where; train at more than 32 pixels"
        )
    drawn = []
    for image, row, cam, index, label in zip(images, logits, maps, indices, labels, strict=True):
        shown = _enlarged(image)
        top = int(row.argmax())
        region = seen_region(preprocessing, image.shape[0], image.shape[1])
        values, seen = place_map(cam[top], region, preprocessing, (shown.shape[0], shown.shape[1]))
        over = overlay(shown, values, seen, float(np.abs(cam[top]).max()) or 1.0)
        probability = 100 * float(softmax(row, bundle.temperature)[top])
        drawn.append(ImageMap(int(index), label, bundle.spec.classes[top], probability, thumbnail(over)))
    return MapSheet(engine, (maps.shape[2], maps.shape[3]), tuple(drawn))


def _enlarged(image: UInt8Array) -> UInt8Array:
    """By a whole factor to about `SIDE` pixels: a map over an 8x8 image would have 8x8 pixels itself."""
    factor = max(1, SIDE // max(image.shape[:2]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1) if factor > 1 else image
