"""What engines are fed while they are timed: real images, encoded as their files are, and prepared."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from samdeploy.arrays import UInt8Array
from samdeploy.bundle import Bundle
from samdeploy.data import Samples
from samdeploy.errors import DatasetError, ImageError, InputError
from samdeploy.evaluate.test_set.open import open_test_set
from samdeploy.images.decode import prepare
from samdeploy.images.walk import find_images

# Enough that no cache holds them all at common sizes, and few enough for a bundle of 512 px images (50 MB).
COUNT = 64
# Of those that cannot be read; the rest is counted.
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class TimedImages:
    """The same images twice.

    Attributes:
        encoded: what a file or a request holds: PNG, JPEG and so on.
        prepared: uint8 [N, H, W, 3], RGB: decoded and resized.
        source: what they are, in words.
    """

    encoded: tuple[bytes, ...]
    prepared: UInt8Array
    source: str


def load_images(bundle: Bundle, folder: Path | None, data_root: Path | None) -> TimedImages:
    """Up to 64 images in random order: of `folder`, else of the test split, else the golden ones.

    Args:
        folder: the user's own images; None: those of the bundle's data set.
        data_root: where the data set lies; None: where training found it.

    Raises:
        InputError: `folder` holds no image.
        ImageError: one of its images cannot be read.
    """
    if folder is not None:
        return _from_folder(bundle, folder)
    try:
        return _from_test_split(bundle, data_root)
    except (DatasetError, ImageError, InputError, ModuleNotFoundError) as error:
        if data_root is not None:  # it was asked for
            raise
        reason = str(error)
    golden, _ = bundle.golden()
    encoded = tuple(_png(image) for image in golden)
    return TimedImages(encoded, golden, f"{len(golden)} golden images as PNG, already of the network's size ({reason})")


def _from_folder(bundle: Bundle, folder: Path) -> TimedImages:
    if not folder.is_dir():
        raise InputError(f"--images: {folder} is not a folder; name a folder of images")
    found = find_images(folder)
    if not found.images and not found.problems:
        raise InputError("; ".join([f"--images: no images in {folder}; name another folder", *found.notes()]))
    chosen = [found.images[index] for index in _some(len(found.images))]
    prepared, broken = [], [str(problem) for problem in found.problems]
    for path in chosen:
        try:
            prepared.append(prepare(path, bundle.spec.preprocessing))
        except ImageError as error:
            broken.append(str(error))
    if broken:
        more = f"; and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
        raise ImageError(
            f"--images: {len(broken)} of {len(chosen) + len(found.problems)} cannot be read: "
            f"{'; '.join(broken[:_SHOWN])}{more}. "
            f"Take them out of {folder}: what is measured must be readable"
        )
    encoded = tuple(path.read_bytes() for path in chosen)
    return TimedImages(encoded, np.stack(prepared), f"{len(chosen)} images of {folder}")


def _from_test_split(bundle: Bundle, data_root: Path | None) -> TimedImages:
    samples = open_test_set(bundle, data_root).samples
    encoded = tuple(_encoded(samples, index) for index in _some(len(samples)))
    prepared = np.stack([prepare(image, bundle.spec.preprocessing) for image in encoded])
    with Image.open(io.BytesIO(encoded[0])) as first:
        kind = f"{first.format}, the first of {first.width}x{first.height}"
    return TimedImages(encoded, prepared, f"{len(encoded)} test images of {bundle.data.name} ({kind})")


def _some(count: int) -> list[int]:
    return [int(index) for index in np.random.default_rng(0).permutation(count)[:COUNT]]


def _encoded(samples: Samples, index: int) -> bytes:
    """As its file or container holds it; an image that lies in an array becomes a PNG."""
    return _png(samples.load(index)) if samples.read is None else samples.read(index)


def _png(image: UInt8Array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
