"""The leak guard: images that stand in two splits.

Accuracy on images that were trained on says nothing about new ones.  The original work of streamlined attention
tested on its training folder; here that is found before the first step of training.
"""

from __future__ import annotations

import filecmp
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samdeploy.arrays import UInt64Array
from samdeploy.data.dataset import SPLITS
from samdeploy.data.duplicates.copies import first_copies
from samdeploy.data.duplicates.image_hashes import FREQUENCIES, ImageHashes
from samdeploy.data.duplicates.likeness import NEAR_BITS, find_likenesses
from samdeploy.errors import DatasetError
from samdeploy.progress import Advance, progress_bar

# Percent of a split that may stand in another one, pixel by pixel, before training is refused.  Published sets have
# some: the first release of Fashion-MNIST 0.1 % of test (the present one none, digits none), and those of CIFAR are
# what they are, with 3.3 and 10 % of test in train in some form (B. Barz, J. Denzler, 2020, "Do we train on test
# data?").  A copied folder has 100 %, folders that were mixed by hand often more than 3.
MAX_EXACT_PERCENT = 2.0
KEEP_APART = "Keep each image in one split only; to train all the same: --set data.leaks=report"
# A shared image in examples; all of them would fill the screen.
_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class SharedImage:
    """One image in two splits.

    Attributes:
        name, other: what it is called in each.
        bits: of the perceptual hash that differ; 0 for equal pixels.
        is_exact: whether the prepared pixels are equal.
        is_same_file: whether both are files with the same bytes.
    """

    name: str
    other: str
    bits: int
    is_exact: bool
    is_same_file: bool

    def to_json(self) -> dict[str, Any]:
        """As in leaks.json; see docs/files.md."""
        return {
            "name": self.name,
            "other": self.other,
            "bits": self.bits,
            "exact": self.is_exact,
            "same_file": self.is_same_file,
        }

    def __str__(self) -> str:
        far = f"{self.bits} of {FREQUENCIES**2} bits differ"  # of the perceptual hash
        how = "the same file" if self.is_same_file else "the same pixels" if self.is_exact else far
        return f"{self.name} {'=' if self.is_exact else '~'} {self.other} ({how})"


@dataclass(frozen=True, slots=True)
class Overlap:
    """The images of one split that stand in an earlier one too.

    Attributes:
        split, other: "test" and "train", for example.
        images: images in `split`.
        exact: of those, how many have prepared pixels that an image of `other` has.
        near: how many more look like an image of `other`: at most `NEAR_BITS` bits of the perceptual hash differ; None
            where those of `other` are not at hand.
        examples: a few of both, exact ones first.
        flat: of the exact ones, how many are of one colour throughout.
    """

    split: str
    other: str
    images: int
    exact: int
    near: int | None
    examples: tuple[SharedImage, ...]
    flat: int = 0

    @property
    def exact_percent(self) -> float:
        """Share of `split`, in percent."""
        return 100 * self.exact / max(1, self.images)

    def to_json(self) -> dict[str, Any]:
        """As in leaks.json; see docs/files.md."""
        return {
            "split": self.split,
            "other": self.other,
            "images": self.images,
            "exact": self.exact,
            "exact_percent": self.exact_percent,
            "near": self.near,
            "near_percent": None if self.near is None else 100 * self.near / max(1, self.images),
            "examples": [example.to_json() for example in self.examples],
        }

    def __str__(self) -> str:
        parts = []
        if self.exact:
            parts.append(f"{self.exact:,} of {self.images:,} {self.split} images ({self.exact_percent:.2f} %) are also "
                         f"in {self.other}, with the same pixels")  # fmt: skip
        if self.near:
            share = 100 * self.near / self.images
            text = (
                f"{self.near:,} {'more ' if self.exact else f'of {self.images:,} {self.split} images '}({share:.2f} %) "
            )
            parts.append(f"{text}look like one in {self.other}")
        return f"{'; '.join(parts)}, for example {self.examples[0]}"


@dataclass(frozen=True, slots=True)
class LeakReport:
    """Every pair of splits that was compared, also those that share nothing."""

    overlaps: tuple[Overlap, ...]

    def to_json(self) -> dict[str, Any]:
        """As in leaks.json; see docs/files.md."""
        return {"near_bits": NEAR_BITS, "overlaps": [overlap.to_json() for overlap in self.overlaps]}

    def lines(self) -> tuple[str, ...]:
        """What a person should hear; empty where nothing is shared."""
        return tuple(str(overlap) for overlap in self.overlaps if overlap.exact or overlap.near)


def find_leaks(splits: Mapping[str, ImageHashes], *, into: Sequence[str] = SPLITS) -> LeakReport:
    """Compare every split with those before it, with a progress bar.

    Args:
        splits: some of "train", "val" and "test".
        into: only these are compared with those before them.
    """
    pairs = [pair for pair in combinations([name for name in SPLITS if name in splits], 2) if pair[1] in into]
    with progress_bar("looking for copies", sum(len(splits[split]) for _, split in pairs)) as advance:
        overlaps = [find_overlap(split, splits[split], other, splits[other], advance) for other, split in pairs]
    return LeakReport(tuple(overlaps))


def find_overlap(
    split: str, images: ImageHashes, other: str, others: ImageHashes, advance: Advance | None = None
) -> Overlap:
    """Which `images` stand among `others` too.

    Args:
        split, other: what the two are called.
        advance: called with the number of images done, and "".
    """
    first = first_copies(np.concatenate([others.digests, images.digests]))[len(others) :]
    is_exact = first < len(others)
    exact = np.flatnonzero(is_exact)
    has_likenesses = others.perceptual.shape[1] > 0
    likenesses = find_likenesses(images.perceptual, others.perceptual, advance) if has_likenesses else ()
    near = sorted((match for match in likenesses if not is_exact[match[0]]), key=lambda match: match[2])
    examples = tuple(
        SharedImage(
            name=images.names[row],
            other=others.names[column],
            bits=bits,
            is_exact=bool(is_exact[row]),
            is_same_file=bool(is_exact[row]) and _is_same_file(images.names[row], others.names[column]),
        )
        for row, column, bits in [*((row, first[row], 0) for row in exact[:_EXAMPLES]), *near[:_EXAMPLES]]
    )
    flat = int((~images.perceptual[exact].any(axis=1)).sum())
    return Overlap(split, other, len(images), len(exact), len(near) if has_likenesses else None, examples, flat)


def refuse_leaks(report: LeakReport, whose: str, cure: str = KEEP_APART) -> None:
    """Refuse splits that share too many images.

    Args:
        whose: opens the error's text.
        cure: ends it.

    Raises:
        DatasetError: more than `MAX_EXACT_PERCENT` of a split stand in another one, pixel by pixel.
    """
    broken = [overlap for overlap in report.overlaps if overlap.exact_percent > MAX_EXACT_PERCENT]
    if not broken:
        return
    worst = max(broken, key=lambda overlap: overlap.exact_percent)
    examples = "; ".join(str(example) for example in worst.examples if example.is_exact)
    what = "; ".join(
        f"{overlap.exact:,} of {overlap.images:,} {overlap.split} images ({overlap.exact_percent:.1f} %) are also in "
        f"{overlap.other}, with the same pixels"
        for overlap in broken
    )
    raise DatasetError(
        f"{whose}: {what}; at most {MAX_EXACT_PERCENT:g} % is allowed. {cure}. For example: {examples}"
        f"{_flat_images(broken)}"
    )


def _flat_images(broken: Sequence[Overlap]) -> str:
    flat, exact = sum(overlap.flat for overlap in broken), sum(overlap.exact for overlap in broken)
    if not flat:
        return ""
    return f". {flat:,} of these {exact:,} are of one colour throughout: are they the images that you mean?"


def is_among(digests: UInt64Array, others: UInt64Array) -> NDArray[np.bool_]:
    """Whether each of `digests`, uint64 [N, 2], is one of `others`, uint64 [M, 2]: bool [N]."""
    is_known: NDArray[np.bool_] = first_copies(np.concatenate([others, digests]))[len(others) :] < len(others)
    return is_known


def _is_same_file(name: str, other: str) -> bool:
    """Whether both name files of the same bytes; the names of images inside larger files name no file."""
    try:
        return Path(name).is_file() and Path(other).is_file() and filecmp.cmp(name, other, shallow=False)
    except (OSError, ValueError):  # gone in the meantime, or no possible path
        return False
