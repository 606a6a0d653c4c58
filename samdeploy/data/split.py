"""Stratified, seeded splits: every class keeps its share on both sides.

The same samples, fraction and seed give the same split on every machine; another seed gives another one.
A test set that samdeploy has to cut itself is always cut first, with `TEST_FRACTION` and `TEST_SEED`: it
depends on nothing that a user sets, so no run, whatever its seed, trains on the images of another run's test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from samdeploy.arrays import Int64Array
from samdeploy.data.dataset import Samples
from samdeploy.errors import DatasetError

TEST_FRACTION = 0.2
TEST_SEED = 20_230_101


def hold_out(
    samples: Samples,
    fraction: float,
    seed: int,
    *,
    classes: tuple[str, ...],
    part: str,
    dataset: str,
    copies: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Samples, Samples]:
    """Split `samples` into (kept, held out), stratified by class, each in the original order.

    ``round(fraction * N)`` images are held out, each class's share of them rounded up or down.  Copies of an image
    go to its side; they count as one, under the label of the first.

    Args:
        samples: what to split.
        fraction: of the images, in (0, 1).
        seed: of the draw.
        classes: names, for errors.
        part: what the held-out images become, "val" or "test", for errors.
        dataset: the data set's name, for errors.
        copies: name of a sample -> name of what it is a copy of; see `samdeploy.data.duplicates.file_copies`.

    Raises:
        DatasetError: a class has fewer than two different images, or the fraction leaves a side with fewer images than
            there are classes.
    """
    cure = "add images" if part == "val" else "add images, or bring a test split of your own"
    # Late: `doctor` and `bench` work on machines that have a runtime alone.
    from sklearn.model_selection import train_test_split

    first = _first_copies(samples.names, copies)
    originals = np.flatnonzero(first == np.arange(len(samples)))
    counts = np.bincount(samples.labels[originals], minlength=len(classes))
    few = [f"{classes[label]!r} ({counts[label]})" for label in np.flatnonzero(counts < 2)]
    if few:
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        more += " (copies count once, in the class of the first)" if copies else ""
        raise DatasetError(
            f"{dataset}: no {part} split can be cut from the training images: at least 2 different images per class "
            f"expected, fewer found in {', '.join(few[:5])}{more}. Add images or remove the class"
        )
    held_count = round(fraction * len(originals))
    if not len(classes) <= held_count <= len(originals) - len(classes):
        enough = np.ceil(100 * len(classes) / len(originals)) / 100
        if part == "val" and len(classes) <= round(enough * len(originals)) <= len(originals) - len(classes):
            cure += f", or --set data.val_fraction={enough:g}"
        raise DatasetError(
            f"{dataset}: {held_count} of {len(originals)} images would be {part} ({fraction:g}), but {part} and train "
            f"need {len(classes)} each, one per class; {cure}"
        )
    kept, held = train_test_split(
        originals, test_size=held_count, stratify=samples.labels[originals], random_state=seed
    )
    lost = np.setdiff1d(np.arange(len(classes)), samples.labels[kept])
    if len(lost):
        raise DatasetError(
            f"{dataset}: a {part} split of {fraction:g} leaves no training image of class {classes[lost[0]]!r} "
            f"({counts[lost[0]]} found in all); {cure}{', or lower data.val_fraction' * (part == 'val')}"
        )
    is_held = np.isin(first, held)
    return samples.take(np.flatnonzero(~is_held)), samples.take(np.flatnonzero(is_held))


def cut_missing(
    samples: dict[str, Samples],
    *,
    classes: tuple[str, ...],
    dataset: str,
    val_fraction: float,
    seed: int,
    copies: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, int]:
    """Cut the splits that `samples` lacks off its train: first test, always the same images, then val.

    Args:
        samples: "train" and perhaps "val" and "test"; completed in place.
        val_fraction, seed: of the cut of val.
        classes, dataset, copies: see `hold_out`.

    Returns:
        Split -> its number of images, of those that were cut.

    Raises:
        DatasetError: as `hold_out`.
    """
    counts = {}
    for part, fraction, its_seed in (("test", TEST_FRACTION, TEST_SEED), ("val", val_fraction, seed)):
        if part not in samples:
            samples["train"], samples[part] = hold_out(
                samples["train"], fraction, its_seed, classes=classes, part=part, dataset=dataset, copies=copies
            )
            counts[part] = len(samples[part])
    return counts


def _first_copies(names: Sequence[str], copies: Mapping[str, str]) -> Int64Array:
    """int64 [N]: for each sample the index of the first one that is the same image."""
    first, known = np.arange(len(names)), {*copies, *copies.values()}
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in known:
            first[index] = seen.setdefault(copies.get(name, name), index)
    return first
