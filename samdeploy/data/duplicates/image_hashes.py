"""What an image is known by: a digest of its prepared pixels, and a hash that survives recompression.

Files of the same bytes are decoded to the same pixels, so equal digests find copies of files too, whatever they are
called and wherever they lie.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from samdeploy.arrays import Float32Array, Int64Array, UInt8Array, UInt64Array
from samdeploy.data.texts import take_texts
from samdeploy.errors import DatasetError
from samdeploy.files import write_atomic

# Frequencies along each side: 256 bits.  The usual 64 (8 x 8) cannot tell clothes apart: of 1,000 test images of
# Fashion-MNIST 104 lie within 2 bits of a training image, which is how far recompression moves an image.  With 256
# bits it is 14 of 10,000 within 16 bits, and they show the same article.
FREQUENCIES = 16
# Bytes of pixels that are turned into floats at a time.
_BLOCK_BYTES = 1 << 20
# Rec. 601 luma, what "grey" means to JPEG and to Pillow.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, slots=True)
class ImageHashes:
    """The images of one split, without their pixels.

    Attributes:
        digests: uint64 [N, 2], the first 128 bits of the SHA-256 of the prepared pixels.
        perceptual: uint64 [N, 4], see `perceptual_hashes`; all zero for an image in which nothing can be seen.
        names: N texts, what to call each image in a message.
        labels: int64 [N], class indices; -1 where none was written down.
        former: so many, the last ones, are of images that were trained on and are no longer in the split.
    """

    digests: UInt64Array
    perceptual: UInt64Array
    names: Sequence[str]
    labels: Int64Array
    former: int = 0

    def __len__(self) -> int:
        return len(self.digests)

    def take(self, indices: Int64Array) -> ImageHashes:
        """Those at `indices`, int64 [M], in that order."""
        names = take_texts(self.names, indices)
        return ImageHashes(self.digests[indices], self.perceptual[indices], names, self.labels[indices])


def hash_images(blocks: Iterable[UInt8Array], names: Sequence[str], labels: Int64Array) -> ImageHashes:
    """Hash prepared images.

    Args:
        blocks: uint8 [n, H, W, 3] RGB, one after the other; all of one size.
        names: one for each image of all blocks.
        labels: int64 [N], likewise.
    """
    digests, perceptual = [np.empty((0, 2), np.uint64)], [np.empty((0, 4), np.uint64)]
    for block in blocks:
        for images in _parts(block):
            digests.append(digests_of(images))
            perceptual.append(perceptual_hashes(images))
    return ImageHashes(np.concatenate(digests), np.concatenate(perceptual), names, labels)


def digests_of(images: UInt8Array) -> UInt64Array:
    """uint8 [n, H, W, 3] -> uint64 [n, 2], the first 128 bits of each image's SHA-256."""
    digests = b"".join(hashlib.sha256(np.ascontiguousarray(image).data).digest()[:16] for image in images)
    return np.frombuffer(digests, "<u8").reshape(-1, 2).astype(np.uint64)


def set_hashes(digests: UInt64Array, labels: Int64Array) -> tuple[str, str]:
    """Which images a split holds, whatever their order and their names: without and with their labels.

    Args:
        digests: uint64 [N, 2], from `digests_of`.
        labels: int64 [N].

    Returns:
        Two SHA-256, each over one row per image, sorted: the digest's 16 bytes, in the second followed by the label as
        little-endian int64.
    """
    order = np.lexsort((labels, digests[:, 1], digests[:, 0]))
    rows = np.ascontiguousarray(digests[order], "<u8")
    labelled = np.ascontiguousarray(np.column_stack([rows, labels[order].astype("<u8")]), "<u8")
    return hashlib.sha256(rows.data).hexdigest(), hashlib.sha256(labelled.data).hexdigest()


def perceptual_hashes(images: UInt8Array) -> UInt64Array:
    """256 bits that stay nearly the same under recompression, noise and a change of brightness or size.

    Bit (u, v) says whether the coefficient of frequency (u, v) of the discrete cosine transform of the grey image is
    positive, for the 16 lowest frequencies of each side; the mean's bit is always 0.  (The idea of C. Zauner, 2010,
    "Implementation and benchmarking of perceptual image hash functions", section 3.2.1, there with 8 x 8.)  A shifted,
    cropped or mirrored copy is not found.

    Computed as two matrix products for many images at once: 0.4 s of one core for 54,000 images of 32x32.  The
    package imagehash takes one image at a time, 0.11 ms for 64 bits of such an image.

    Args:
        images: uint8 [n, H, W, 3] RGB.

    Returns:
        uint64 [n, 4]; zero where the image is flat, that is varies by less than one grey level.
    """
    grey = images.astype(np.float32) @ LUMA
    rows, columns = _cosines(images.shape[1]), _cosines(images.shape[2])
    coefficients = (rows @ (grey @ columns.T)).reshape(len(images), -1)
    coefficients[:, 0] = 0  # the mean: brightness, which says nothing about what is seen
    # An image's variance is at most 4 times the sum of squares of coefficients in this scale.
    is_flat = 4 * np.square(coefficients).sum(axis=1) < 1
    bits = (coefficients > 0) & ~is_flat[:, None]
    return np.packbits(bits, axis=1).view("<u8").astype(np.uint64)


def write_hashes(path: Path, splits: Mapping[str, ImageHashes]) -> None:
    """Write the hashes of all splits as a plain .npz: `<split>.digests`, `.perceptual`, `.labels`, `.former`, and
    `.names` in UTF-8."""
    arrays: dict[str, Any] = {}
    for split, hashes in splits.items():
        names = "\0".join(hashes.names).encode("utf-8", "surrogateescape")
        arrays |= {
            f"{split}.digests": hashes.digests,
            f"{split}.perceptual": hashes.perceptual,
            f"{split}.labels": hashes.labels,
            f"{split}.former": np.array(hashes.former),
            f"{split}.names": np.frombuffer(names, np.uint8),
        }
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_atomic(path, content.getvalue())


def read_hashes(path: Path) -> dict[str, ImageHashes]:
    """What `write_hashes` wrote.

    Raises:
        DatasetError: damaged, or something else.
    """
    found = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for split in sorted({name.partition(".")[0] for name in file.files}):
                names = file[f"{split}.names"].tobytes().decode("utf-8", "surrogateescape").split("\0")
                # Labels and former images are in newer files only.
                unknown = np.full(len(names), -1, np.int64)
                labels = file[f"{split}.labels"] if f"{split}.labels" in file.files else unknown
                former = int(file[f"{split}.former"]) if f"{split}.former" in file.files else 0
                digests, perceptual = file[f"{split}.digests"], file[f"{split}.perceptual"]
                found[split] = ImageHashes(digests, perceptual, names, labels, former)
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path}: no image hashes ({error}); remove it, or train again") from None
    for split, hashes in found.items():
        count = len(hashes.names)
        arrays = (hashes.digests, hashes.perceptual, hashes.labels)
        shapes, types = [array.shape for array in arrays], [str(array.dtype) for array in arrays]
        if shapes != [(count, 2), (count, 4), (count,)] or types != ["uint64", "uint64", "int64"]:
            texts = ", ".join(f"{type} {list(shape)}" for type, shape in zip(types, shapes, strict=True))
            raise DatasetError(
                f"{path}: {split}: {texts} found for {count} names, uint64 [N, 2], uint64 [N, 4] and int64 [N] "
                "expected; remove it, or train again"
            )
    return found


def _parts(images: UInt8Array) -> Iterable[UInt8Array]:
    step = max(1, _BLOCK_BYTES // max(1, int(np.prod(images.shape[1:]))))
    return (images[start : start + step] for start in range(0, len(images), step))


def _cosines(length: int) -> Float32Array:
    """float32 [FREQUENCIES, length]: the basis of the DCT-II, divided by `length`."""
    places = 2 * np.arange(length) + 1
    cosines = np.cos(np.pi / (2 * length) * np.outer(np.arange(FREQUENCIES), places)) / length
    return np.asarray(cosines, np.float32)
