"""Everything that training reads, loaded and found sound before the first file is written."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import numpy as np

from samdeploy.arrays import Int64Array, UInt8Array
from samdeploy.bundle.spec import Preprocessing
from samdeploy.data import DATASETS, SPLITS, open_dataset
from samdeploy.data.cache import PreparedSplit, prepare_split
from samdeploy.data.dataset import Dataset, Samples
from samdeploy.data.duplicates.copies import TwoLabels, find_two_labels
from samdeploy.data.duplicates.image_hashes import ImageHashes, set_hashes
from samdeploy.data.duplicates.leaks import LeakReport, find_leaks, refuse_leaks
from samdeploy.data.protocol import HONEST, PROTOCOLS
from samdeploy.errors import NEXT_FAULT, DatasetError, DatasetMissing
from samdeploy.files import expanded
from samdeploy.terminal import printable
from samdeploy.train.keep_apart import keep_apart
from samdeploy.train.recipe.recipe import Recipe

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class PreparedData:
    """The data set in memory.

    Attributes:
        classes: names; the index is the label.
        splits: per split, images uint8 [N, H, W, 3] RGB and labels int64 [N].
        training: what the weights are fitted to: the train split, larger where the recipe wants that for its crops.
        fingerprints: SHA-256 per split.
        hashes: of every image, per split.
        leaks: images that are in two splits.
        two_labels: images under more than one label, in one split or two.
        protocol: what the splits are used for, see `samdeploy.data.protocol`.
    """

    classes: tuple[str, ...]
    splits: dict[str, tuple[UInt8Array, Int64Array]]
    training: tuple[UInt8Array, Int64Array]
    fingerprints: dict[str, str]
    hashes: dict[str, ImageHashes]
    leaks: LeakReport
    two_labels: TwoLabels
    protocol: str

    @property
    def test_measures(self) -> str:
        """What the final figure is, in words."""
        measures = PROTOCOLS[self.protocol]
        if self.protocol == HONEST:  # the others say it already
            for overlap in self.leaks.overlaps:
                if overlap.other == "train" and overlap.exact:
                    measures += f"; but {overlap.exact:,} of {overlap.images:,} {overlap.split} images were trained on"
        return measures

    def set_hashes(self) -> dict[str, tuple[str, str]]:
        """Of val and test, the images without and with their labels, see `image_hashes.set_hashes`."""
        return {name: set_hashes(self.hashes[name].digests, self.splits[name][1]) for name in ("val", "test")}

    def counts(self) -> dict[str, int]:
        """Images per split."""
        return {name: len(labels) for name, (_, labels) in self.splits.items()}


def prepare_data(recipe: Recipe, dataset: Dataset) -> PreparedData:
    """Read all three splits.

    The test images are read here too, though nothing looks at them before the end: a damaged one should be known now,
    and not after hours of training.

    Args:
        dataset: the recipe's, as `open_recipe_data` gives it.

    Raises:
        DatasetError: images are damaged, or splits share too many of them (see `samdeploy.data.duplicates.leaks`).
    """
    dataset, splits = prepare_splits(dataset, recipe)
    hashes = {name: split.hashes for name, split in splits.items()}
    leaks, two_labels = find_leaks(hashes), find_two_labels(hashes, dataset.classes)
    for line in two_labels.lines():
        print(printable(line), file=sys.stderr)
    if recipe.data.leaks == "refuse":
        refuse_leaks(leaks, f"data set {recipe.data.name!r}")
    for line in leaks.lines():
        print(printable(line), file=sys.stderr)
    train = prepare_larger(dataset, recipe, splits["train"])
    return PreparedData(
        classes=dataset.classes,
        splits={name: (split.images, split.labels) for name, split in splits.items()},
        training=(train.images, train.labels),
        fingerprints={name: split.fingerprint for name, split in splits.items()},
        hashes=hashes,
        leaks=leaks,
        two_labels=two_labels,
        protocol=dataset.protocol,
    )


def open_recipe_data(recipe: Recipe) -> Dataset:
    """The recipe's data set; no image in a file of its own is read yet.  What there is to say of it goes to stderr.

    Raises:
        DatasetError: missing or damaged (see `samdeploy.data`).
    """
    data = recipe.data
    try:
        dataset = open_dataset(
            data.name,
            expanded(data.root),
            options=data.options,
            val_fraction=data.val_fraction,
            seed=data.split_seed,
            download=data.download,
        )
    except DatasetMissing as error:
        if not DATASETS[data.name].can_download:
            raise
        raise DatasetMissing(f"{error}. Or add --download") from None
    for note in dataset.notes:
        print(printable(note), file=sys.stderr)
    return dataset


def class_counts(dataset: Dataset) -> dict[str, Int64Array]:
    """Per split, images of each class, int64 [K]."""
    return {name: np.bincount(dataset.split(name).labels, minlength=len(dataset.classes)) for name in SPLITS}


def check_counts(dataset: Dataset) -> None:
    """Refuse a split without an image, and a class that nothing can be learned of.

    Raises:
        DatasetError: it is one of these.
    """
    counts = class_counts(dataset)
    for name, of_classes in counts.items():
        if not of_classes.sum():
            raise DatasetError(f"data set {dataset.name!r}: 0 images found in the {name} split; at least 1 expected")
    empty = [dataset.classes[label] for label in np.flatnonzero(counts["train"] == 0)]
    if empty:
        more = f" and {len(empty) - _SHOWN} more" if len(empty) > _SHOWN else ""
        raise DatasetError(
            f"data set {dataset.name!r}: 0 training images found for {len(empty)} of {len(dataset.classes)} classes: "
            f"{', '.join(map(repr, empty[:_SHOWN]))}{more}; at least 1 expected for each. Add images, or remove the "
            "class"
        )


def prepare_splits(dataset: Dataset, recipe: Recipe) -> tuple[Dataset, dict[str, PreparedSplit]]:
    """Every split at the network's size; splits that are one and the same are prepared once.

    Returns:
        The data set and its splits, without copies across a cut that samdeploy made, see `keep_apart`.

    Raises:
        DatasetError: images are missing or damaged, those of all splits are named; or only copies of a class are left.
    """

    def prepare(samples: Samples, name: str) -> PreparedSplit:
        return prepare_split(samples, recipe.image.preprocessing(), description=name, cache=recipe.data.cache)

    splits: dict[str, PreparedSplit] = {}
    broken: dict[str, DatasetError] = {}
    for name in SPLITS:
        samples = dataset.split(name)
        same = next((other for other in (*splits, *broken) if dataset.split(other) is samples), None)
        if same is None:
            try:
                splits[name] = prepare(samples, name)
            except DatasetError as error:
                broken[name] = error
        elif same in splits:
            splits[name] = splits[same]
    if broken:
        texts = [str(error) for error in broken.values()]
        raise DatasetError(
            texts[0] if len(texts) == 1 else NEXT_FAULT.join([f"{len(texts)} splits are damaged:", *texts])
        )
    dataset, splits = keep_apart(dataset, splits, prepare)
    check_counts(dataset)
    return dataset, splits


def prepare_larger(dataset: Dataset, recipe: Recipe, train: PreparedSplit) -> PreparedSplit:
    """What the weights are fitted to: `train`, or the same images larger, where the recipe's crops want that."""
    if recipe.augment.oversize == 1:
        return train
    return prepare_split(
        dataset.train, training_preprocessing(recipe), description="larger train", cache=recipe.data.cache
    )


def training_preprocessing(recipe: Recipe) -> Preprocessing:
    """As the image section has it, `augment.oversize` times as large in each direction."""
    image, factor = recipe.image.preprocessing(), recipe.augment.oversize
    return replace(
        image,
        height=round(image.height * factor),
        width=round(image.width * factor),
        resize_short=None if image.resize_short is None else round(image.resize_short * factor),
    )
