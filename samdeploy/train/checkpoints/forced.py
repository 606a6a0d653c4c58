"""What `--force` changes about a run that goes on: what its weights have seen, and what its best epoch is worth.

A recipe or pictures may be changed in the middle of a training.  Then the weights have learnt from pictures that may
stand in val or test now, and the best epoch's accuracy is that on other pictures.  Neither is passed over in silence.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from samdeploy.data.leaks import LeakReport, find_leaks, is_among, refuse_leaks
from samdeploy.data.picture_hashes import PictureHashes, read_hashes
from samdeploy.run import HASHES_FILE, RECIPE_FILE, RunRecord
from samdeploy.train.checkpoints.resume import Resumed, changed_splits
from samdeploy.train.recipe import Recipe

MOVED = (
    "Where a data set brings no val or test of its own, they are drawn anew when pictures come or go, and pictures "
    "that were trained on get into them. Restore the pictures as they were, or train anew: samdeploy train {recipe}; "
    "to go on all the same, with a test figure that says how many were trained on: --set data.leaks=report --force"
)
_BEFORE = " (trained on before)"


def with_learnt_pictures(resumed: Resumed, splits: Mapping[str, PictureHashes]) -> dict[str, PictureHashes]:
    """The splits of now; what the run has trained on before stands under "train" too.

    Raises:
        DatasetError: the run's own hashes are damaged.
    """
    path = resumed.path / HASHES_FILE
    before = read_hashes(path).get("train") if path.is_file() else None
    if before is None:
        return dict(splits)
    train = splits["train"]
    gone = np.flatnonzero(~is_among(before.digests, train.digests)).tolist()
    names = [*train.names, *(f"{before.names[row].removesuffix(_BEFORE)}{_BEFORE}" for row in gone)]
    learnt = PictureHashes(
        np.concatenate([train.digests, before.digests[gone]]),
        np.concatenate([train.perceptual, before.perceptual[gone]]),
        names,
    )
    return {**splits, "train": learnt}


def find_learnt_leaks(resumed: Resumed, splits: Mapping[str, PictureHashes], recipe: Recipe) -> LeakReport:
    """Compare val and test with all that the weights have learnt from.

    Args:
        splits: from `with_learnt_pictures`.

    Raises:
        DatasetError: they share too many pictures, and the recipe refuses that.
    """
    leaks = find_leaks(splits)
    if recipe.data.leaks == "refuse":
        # What the pictures of now share among themselves has been refused already: these were moved.
        whose = f"run {resumed.path}, with the pictures that it was trained on before the data set changed"
        refuse_leaks(leaks, whose, MOVED.format(recipe=resumed.path / RECIPE_FILE))
    return leaks


def is_best_of_other_pictures(resumed: Resumed, record: RunRecord) -> bool:
    """Whether the best epoch so far was chosen on other validation pictures, or on the same prepared otherwise."""
    return "val" in changed_splits(resumed, record) or any(change.startswith("image.") for change in resumed.changes)


def forced_changes(resumed: Resumed, record: RunRecord) -> str:
    """For the run's provenance: what was changed; "" for nothing."""
    splits = changed_splits(resumed, record)
    pictures = [f"pictures of {', '.join(splits)}"] if splits else []
    return "; ".join([*resumed.changes, *pictures])
