"""Stratified, seeded splits: every class keeps its share on both sides.

The same samples, fraction and seed give the same split on every machine; another seed gives another one.
A test set that samdeploy has to cut itself is always cut first, with `TEST_FRACTION` and `TEST_SEED`: it
depends on nothing that a user sets, so no run, whatever its seed, trains on the pictures of another run's test.
"""

from __future__ import annotations

import numpy as np

from samdeploy.data.dataset import Samples
from samdeploy.errors import DatasetError

TEST_FRACTION = 0.2
TEST_SEED = 20_230_101


def hold_out(
    samples: Samples, fraction: float, seed: int, *, classes: tuple[str, ...], part: str, dataset: str
) -> tuple[Samples, Samples]:
    """Split `samples` into (kept, held out), stratified by class, each in the original order.

    ``round(fraction * N)`` pictures are held out, each class's share of them rounded up or down.

    Args:
        samples: what to split.
        fraction: of the pictures, in (0, 1).
        seed: of the draw.
        classes: names, for errors.
        part: what the held-out pictures become, "val" or "test", for errors.
        dataset: the data set's name, for errors.

    Raises:
        DatasetError: a class has fewer than two pictures, or the fraction leaves a side with fewer pictures
            than there are classes.
    """
    cure = "change val_fraction or add pictures" if part == "val" else "add pictures, or bring a test split of your own"
    # Late: `doctor` and `bench` work on machines that have a runtime alone.
    from sklearn.model_selection import train_test_split

    counts = np.bincount(samples.labels, minlength=len(classes))
    few = [f"{classes[label]!r} ({counts[label]})" for label in np.flatnonzero(counts < 2)]
    if few:
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        raise DatasetError(
            f"{dataset}: no {part} split can be cut from the training pictures: at least 2 pictures per class "
            f"expected, fewer found in {', '.join(few[:5])}{more}. Add pictures or remove the class"
        )
    held_count = round(fraction * len(samples))
    if not len(classes) <= held_count <= len(samples) - len(classes):
        raise DatasetError(
            f"{dataset}: a {part} split of {fraction:g} of {len(samples)} pictures is {held_count}; at least "
            f"{len(classes)} (one per class) must be on either side; {cure}"
        )
    kept, held = train_test_split(
        np.arange(len(samples), dtype=np.int64), test_size=held_count, stratify=samples.labels, random_state=seed
    )
    lost = np.setdiff1d(np.arange(len(classes)), samples.labels[kept])
    if len(lost):
        raise DatasetError(
            f"{dataset}: a {part} split of {fraction:g} leaves no training picture of class {classes[lost[0]]!r} "
            f"({counts[lost[0]]} found in all); {cure}"
        )
    return samples.take(np.sort(kept)), samples.take(np.sort(held))
