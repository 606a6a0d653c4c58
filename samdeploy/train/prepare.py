"""Everything that training reads, loaded and found sound before the first file is written."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from samdeploy.data import SPLITS, fingerprint, load_images, open_dataset
from samdeploy.data.dataset import Int64Array
from samdeploy.data.leaks import LeakReport, find_leaks, refuse_leaks
from samdeploy.data.picture_hashes import PictureHashes, hash_pictures
from samdeploy.preprocess import UInt8Array
from samdeploy.train.recipe import Recipe


@dataclass(frozen=True, slots=True)
class PreparedData:
    """The data set in memory.

    Attributes:
        classes: names; the index is the label.
        splits: per split, images uint8 [N, H, W, 3] RGB and labels int64 [N].
        fingerprints: SHA-256 per split.
        hashes: of every picture, per split.
        leaks: pictures that stand in two splits.
    """

    classes: tuple[str, ...]
    splits: dict[str, tuple[UInt8Array, Int64Array]]
    fingerprints: dict[str, str]
    hashes: dict[str, PictureHashes]
    leaks: LeakReport

    def counts(self) -> dict[str, int]:
        """Pictures per split."""
        return {name: len(labels) for name, (_, labels) in self.splits.items()}


def prepare_data(recipe: Recipe) -> PreparedData:
    """Open the recipe's data set and read all three splits.

    The test pictures are read here too, though nothing looks at them before the end: a damaged one should
    be known now, and not after hours of training.

    Raises:
        DatasetError: missing, damaged, fewer than two classes, an empty split (see `samdeploy.data`), or splits that
            share too many pictures (see `samdeploy.data.leaks`).
    """
    data = recipe.data
    dataset = open_dataset(
        data.name,
        Path(data.root).expanduser(),
        options=data.options,
        val_fraction=data.val_fraction,
        seed=data.split_seed,
        download=data.download,
    )
    for note in dataset.notes:
        print(note, file=sys.stderr)
    preprocessing = recipe.image.preprocessing()
    splits = {name: load_images(dataset.split(name), preprocessing, description=name) for name in SPLITS}
    fingerprints = {name: fingerprint(*split) for name, split in splits.items()}
    hashes = {name: hash_pictures([images], dataset.split(name).names) for name, (images, _) in splits.items()}
    leaks = find_leaks(hashes)
    if data.leaks == "refuse":
        refuse_leaks(leaks, data.name)
    for line in leaks.lines():
        print(line, file=sys.stderr)
    return PreparedData(dataset.classes, splits, fingerprints, hashes, leaks)
