"""An image, its class activation map, or both, as PNG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from samdeploy.arrays import UInt8Array
from samdeploy.explain.overlay import layer, overlay
from samdeploy.explain.region import place_map
from samdeploy.explain.sources import ReadImage, decoded_image
from samdeploy.images.decode import decode
from samdeploy.ranking import not_finite
from samdeploy.serve.errors import RequestError

if TYPE_CHECKING:
    from samdeploy.serve.served import ServedModel


def explained_png(model: ServedModel, encoded: bytes, wanted: str | None, *, alone: bool) -> tuple[bytes, str]:
    """The map of a class over the image, or for `alone` the map with transparency; and the class.

    Args:
        wanted: a class's name or number; None: the most probable one.

    Raises:
        ImageError: the image cannot be read, or has no finite answer.
        RequestError: no such class (400), or the bundle has no maps (501).
    """
    session, spec = model.maps(), model.spec
    image = _read(model, encoded)
    logits, maps = session.run_with_maps(image.prepared[None])
    if (error := not_finite(logits[0], session.precision)) is not None:
        raise error
    index = _class_index(wanted, spec.classes) if wanted is not None else int(logits[0].argmax())
    # The scale of the strongest class: one that is hardly there must not look as strong as the one that is.
    best = int(logits[0].argmax())
    scale = float(np.abs(maps[0, [best, index]]).max()) or 1.0
    shape = image.shown.shape[0], image.shown.shape[1]
    values, seen = place_map(maps[0, index], image.region, spec.preprocessing, shape)
    drawn = layer(values, seen, scale) if alone else overlay(image.shown, values, seen, scale)
    return _png(drawn), spec.classes[index]


def decoded_png(model: ServedModel, encoded: bytes) -> bytes:
    """The image as it is decoded here, upright, for a browser that cannot read its format; as large as its map.

    Raises:
        ImageError: it cannot be read.
    """
    return _png(_read(model, encoded).shown)


def _read(model: ServedModel, encoded: bytes) -> ReadImage:
    limits = model.limits
    decoded = decode(encoded, max_pixels=limits.max_pixels, max_bytes=limits.max_bytes)
    return decoded_image(decoded, model.spec.preprocessing)


def _png(image: UInt8Array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _class_index(wanted: str, classes: tuple[str, ...]) -> int:
    if wanted in classes:
        return classes.index(wanted)
    if wanted.isascii() and wanted.isdecimal() and len(wanted) < 8 and int(wanted) < len(classes):
        return int(wanted)
    raise RequestError(400, f"class: {wanted[:60]!r} found, a class's name or a number below {len(classes)} expected")
