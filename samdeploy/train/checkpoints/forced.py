"""What `--force` changes about a run that goes on: what its weights have seen, and what its best epoch is worth.

A recipe or images may be changed in the middle of a training.  Then the weights have learnt from images that may
stand in val or test now, and the best epoch's accuracy is that on other images.  Neither is passed over in silence.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from samdeploy.bundle.names import HASHES_FILE, RECIPE_FILE
from samdeploy.data.duplicates.image_hashes import ImageHashes, read_hashes
from samdeploy.data.duplicates.leaks import LeakReport, find_leaks, is_among, refuse_leaks
from samdeploy.errors import DatasetError
from samdeploy.runs.record import RunRecord
from samdeploy.train.checkpoints.resume import Resumed, changed_splits

MOVED = (
    "Where a data set brings no val or test of its own, they are drawn anew when images come or go, and images "
    "that were trained on get into them. Restore the images as they were, or train anew: samdeploy train {recipe}; "
    "to go on all the same, with figures that say how many were trained on: --set data.leaks=report --force"
)


def check_images(
    resumed: Resumed, record: RunRecord, splits: Mapping[str, ImageHashes]
) -> tuple[dict[str, ImageHashes], LeakReport, str]:
    """Compare images that are no longer those of the checkpoint with all that the weights have learnt from.

    Args:
        splits: the images of now.

    Returns:
        The splits of now, where what was trained on before stands under "train" too; what val and test share with
        that; and what changed, in words.

    Raises:
        DatasetError: this was not forced; or val and test share too many images with what was trained on, and the
            recipe refuses that; or the run's own hashes are damaged.
    """
    path = resumed.path / HASHES_FILE
    before = read_hashes(path) if path.is_file() else {}
    differences = "; ".join(
        _difference(name, before.get(name), splits[name]) for name in changed_splits(resumed, record)
    )
    changed = f"run {resumed.path}: the data set changed since the checkpoint was written ({differences})"
    learnt = _with_learnt(before.get("train"), splits)
    leaks = find_leaks(learnt)
    if resumed.recipe.data.leaks == "refuse":
        # What the images of now share among themselves has been refused already: these were moved.
        whose = f"{changed}. With those that were trained on before"
        refuse_leaks(leaks, whose, MOVED.format(recipe=resumed.path / RECIPE_FILE))
    if not resumed.force:
        raise DatasetError(f"{changed}; restore the images, or go on with the new ones: --force")
    return learnt, leaks, f"{changed}; going on with the new images"


def _difference(name: str, before: ImageHashes | None, now: ImageHashes) -> str:
    """ "train: 2 of 22 gone, 1 new"."""
    if before is None:
        return f"{name} differs"
    of_split = before.digests[: len(before) - before.former]
    gone = int((~is_among(of_split, now.digests)).sum())
    new = int((~is_among(now.digests, of_split)).sum())
    if not gone and not new:
        return f"{name}: the same images, but their labels, their order or their number differ"
    return f"{name}: {gone:,} of {len(of_split):,} gone, {new:,} new"


def _with_learnt(before: ImageHashes | None, splits: Mapping[str, ImageHashes]) -> dict[str, ImageHashes]:
    if before is None:
        return dict(splits)
    train = splits["train"]
    gone = np.flatnonzero(~is_among(before.digests, train.digests))
    names = [
        before.names[row] if row >= len(before) - before.former else f"{before.names[row]} (trained on before)"
        for row in gone.tolist()
    ]
    learnt = ImageHashes(
        np.concatenate([train.digests, before.digests[gone]]),
        np.concatenate([train.perceptual, before.perceptual[gone]]),
        [*train.names, *names],
        np.concatenate([train.labels, before.labels[gone]]),
        former=len(gone),
    )
    return {**splits, "train": learnt}


def is_best_of_other_images(resumed: Resumed, record: RunRecord) -> bool:
    """Whether the best epoch so far was chosen on other validation images, or on the same prepared otherwise."""
    return "val" in changed_splits(resumed, record) or any(key.startswith("image.") for key in resumed.changes)


def forced_changes(resumed: Resumed, record: RunRecord) -> tuple[str, ...]:
    """What was changed about recipe and images, in words."""
    splits = changed_splits(resumed, record)
    return (*resumed.changes.values(), *([f"images of {', '.join(splits)}"] if splits else []))
