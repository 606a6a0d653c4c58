"""Whether the test images were seen in training: compared with what the bundle, or the run around it, remembers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from samdeploy.arrays import Int64Array
from samdeploy.bundle import Bundle
from samdeploy.bundle.names import HASHES_FILE
from samdeploy.data.duplicates.bundle_hashes import ROLES, bundle_hashes, from_bundle_hashes
from samdeploy.data.duplicates.image_hashes import ImageHashes, read_hashes
from samdeploy.data.duplicates.leaks import MAX_EXACT_PERCENT, LeakReport, find_leaks, is_among
from samdeploy.data.protocol import HONEST
from samdeploy.runs.locate import run_around

# Of the images; see `not_looked_at`.
_MOST_KNOWN = 0.5


def known_images(bundle: Bundle) -> dict[str, ImageHashes]:
    """What is remembered of train and val; empty where nothing is.

    The run around the bundle knows names and likenesses too; the bundle's own hashes say whether it is the bundle's
    run.

    Raises:
        BundleError: the bundle's hashes are damaged.
        DatasetError: the run's are.
    """
    own = {
        split: bundle.array(role, np.dtype(np.uint64), (2,))
        for split, role in ROLES.items()
        if bundle.find(role) is not None
    }
    path = run_around(bundle) / HASHES_FILE
    run = {split: found for split, found in read_hashes(path).items() if split in ROLES} if path.is_file() else {}
    if run and all(split in run and np.array_equal(bundle_hashes(run[split]), rows) for split, rows in own.items()):
        return run
    return {split: from_bundle_hashes(rows, split) for split, rows in own.items()}


def not_looked_at(bundle: Bundle, hashes: ImageHashes) -> Int64Array:
    """The images that an imported network can be judged on, int64 [M]: those that import and export did not look at.

    A folder that has grown since holds some, because others are set aside now.  Where most are known it is no such
    folder: none is left out, and `trained_on` fails.  The same goes for networks that were trained here.
    """
    known = known_images(bundle) if bundle.is_imported else {}
    every = np.arange(len(hashes))
    if not known:
        return every
    looked_at = is_among(hashes.digests[:, :1], np.concatenate([found.digests[:, :1] for found in known.values()]))
    return every if looked_at.mean() > _MOST_KNOWN else np.flatnonzero(~looked_at)


def left_out(kept: Int64Array, hashes: ImageHashes) -> tuple[str, ...]:
    """What there is to say where `not_looked_at` kept fewer images than there are."""
    count = len(hashes) - len(kept)
    text = f"{count:,} of {len(hashes):,} images are not judged: they were looked at when the engines were made"
    return (text,) if count else ()


def beside(known: Mapping[str, ImageHashes], test: ImageHashes) -> dict[str, ImageHashes]:
    """`known` and the test images, all with digests of one width."""
    width = min([found.digests.shape[1] for found in known.values()], default=test.digests.shape[1])
    return {**known, "test": dataclasses.replace(test, digests=test.digests[:, :width])}


def find_test_leaks(known: Mapping[str, ImageHashes], test: ImageHashes) -> LeakReport | None:
    """Distinct test images that are in train or val, too; None where neither is known.

    Training compares its own splits; here the images may be others (`--data`), and be those that were trained on.
    """
    return find_leaks(beside(known, test), into=("test",)) if known else None


def trained_on(leaks: LeakReport | None, protocol: str, *, imported: bool = False) -> tuple[str, ...]:
    """Why the evaluation fails where too many test images were trained on; nothing where training declared that.

    Args:
        imported: no image is known to have been trained on; those that the engines were made with are what counts.
    """
    splits = ("train", "val") if imported else ("train",)
    found = [row for row in leaks.overlaps if row.other in splits] if leaks is not None else []
    how = "were looked at when the engines were made" if imported else "were trained on"
    return tuple(
        f"{row.exact:,} of {row.images:,} test images ({row.exact_percent:.1f} %) {how}, at most "
        f"{MAX_EXACT_PERCENT:g} % is accepted: give images that were not, with --data"
        for row in found
        if row.exact_percent > MAX_EXACT_PERCENT and protocol == HONEST
    )
