"""The images an export looks at: golden ones of val, calibration ones of train, never one of test.

What a bundle is judged on must not be what it was tuned or checked with while it was made.  That the splits are
disjoint is not relied on: an image whose pixels are those of a test image is left out, wherever it stands.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from samdeploy.arrays import Int64Array, UInt8Array, UInt64Array
from samdeploy.bundle.names import HASHES_FILE
from samdeploy.data import check_folder, open_dataset
from samdeploy.data.dataset import Dataset, Samples
from samdeploy.data.duplicates.image_hashes import digests_of, read_hashes
from samdeploy.data.duplicates.leaks import is_among
from samdeploy.data.images import load_images
from samdeploy.data.probe_images import stand_ins
from samdeploy.data.protocol import HONEST
from samdeploy.errors import ExportError
from samdeploy.runs.record import RunRecord

# Enough for every batch size that an export is checked at, and under a megabyte at 192 px.
GOLDEN_IMAGES = 8
# INT8's ranges leave out the few images that explode, and settle with these.
CALIBRATION_IMAGES = 128
# FP16's head-room must hold for those few, and without squashing 128 images miss them: on 10,000 test images values
# were 2.4 to 4.4 bits larger, against 0.7 bits with 1,024.
MOST_HEADROOM_IMAGES = 1024
# Multiply-adds for all of them together: a few seconds of a desktop's processor.
_HEADROOM_WORK = 4e11


@dataclass(frozen=True, slots=True)
class ExportImages:
    """Prepared images, uint8 [n, H, W, 3] RGB, each set spread over the classes.

    Attributes:
        golden: of the validation split; they travel with the bundle.
        calibration: of the training split; INT8's ranges, and whether a layer rounds badly in FP16.
        headroom: of the training split; the largest activations are measured on them.
    """

    golden: UInt8Array
    calibration: UInt8Array
    headroom: UInt8Array


def has_images(record: RunRecord, data_root: Path | None) -> bool:
    """Whether any are known: a network may be imported without."""
    return bool(record.data_root) or data_root is not None


def headroom_images(multiply_adds: int) -> int:
    """How many images are measured of a network with so many multiply-adds per image: 128 to 1,024."""
    return min(MOST_HEADROOM_IMAGES, max(CALIBRATION_IMAGES, int(_HEADROOM_WORK // multiply_adds)))


def export_images(
    run_dir: Path, record: RunRecord, data_root: Path | None, n_headroom: int = MOST_HEADROOM_IMAGES
) -> ExportImages:
    """Read them from the data set that the run was trained on.

    Of a run without images the golden ones are synthetic, and there are no others.

    Args:
        run_dir: holds the hashes of the test images; without them the test images are read.
        record: names the data set, its options and its split.
        data_root: where it lies now; None: where training found it.
        n_headroom: see `headroom_images`.

    Raises:
        DatasetError: it is not there, or an image is damaged.
        ExportError: all images of val, or all that were picked of train, are test images too.
    """
    if not has_images(record, data_root):
        height, width = record.preprocessing.height, record.preprocessing.width
        none = np.empty((0, height, width, 3), np.uint8)
        return ExportImages(stand_ins(height, width), none, none)
    dataset = _dataset(record, data_root)
    test = _test_digests(run_dir, record, dataset)
    # A published protocol that is repeated keeps no val: its figure is not one of new images, and says so.
    source = dataset.val if dataset.protocol == HONEST else dataset.train
    golden, _ = _load(source.spread(GOLDEN_IMAGES), record, test, "golden images")
    calibration, _ = _load(dataset.train.spread(CALIBRATION_IMAGES), record, test, "calibration images")
    headroom, _ = _load(dataset.train.spread(n_headroom), record, test, "head-room images")
    return ExportImages(golden, calibration, headroom)


def validation_images(run_dir: Path, record: RunRecord, data_root: Path | None) -> tuple[UInt8Array, Int64Array]:
    """The whole validation split: uint8 [n, H, W, 3] and labels int64 [n]; see `export_images`."""
    dataset = _dataset(record, data_root)
    return _load(dataset.val, record, _test_digests(run_dir, record, dataset), "validation images")


def count_validation(record: RunRecord, data_root: Path | None) -> int:
    """Images of the validation split; 0 without images, and where a published protocol uses them otherwise."""
    if not has_images(record, data_root):
        return 0
    dataset = _dataset(record, data_root)
    return len(dataset.val) if dataset.protocol == HONEST else 0


def new_images(run_dir: Path, record: RunRecord, data_root: Path | None, most: int) -> tuple[UInt8Array, Int64Array]:
    """At most `most` images of val as if they were drawn anew: at random, each one once, none of train.

    uint8 [n, H, W, 3] and labels int64 [n]; see `export_images`.
    """
    dataset = _dataset(record, data_root)
    drawn = dataset.val.take(np.random.default_rng(0).permutation(len(dataset.val))[:most])
    images, labels = _load(drawn, record, _test_digests(run_dir, record, dataset), "validation images")
    digests = digests_of(images)
    first = np.zeros(len(images), np.bool_)
    first[np.unique(digests, axis=0, return_index=True)[1]] = True
    if record.status != "imported":  # an imported network's train is what export looks at
        first &= ~is_among(digests, _train_digests(run_dir))
    return images[first], labels[first]


def _dataset(record: RunRecord, data_root: Path | None) -> Dataset:
    check_folder(record.dataset, data_root, "the run's")
    root = data_root or Path(record.data_root)
    dataset = open_dataset(
        record.dataset, root, options=record.data_options, val_fraction=record.val_fraction, seed=record.split_seed
    )
    return dataset.relabelled(record.classes)


def _test_digests(run_dir: Path, record: RunRecord, dataset: Dataset) -> UInt64Array:
    """uint64 [N, 2], what the test images are known by; none where the protocol tests on training images."""
    if dataset.protocol == "tested-on-train":
        return np.empty((0, 2), np.uint64)
    path = run_dir / HASHES_FILE
    if path.is_file():
        hashes = read_hashes(path)
        if "test" in hashes:
            return hashes["test"].digests
    images, _ = load_images(dataset.test, record.preprocessing, description="test images")
    return digests_of(images)


def _train_digests(run_dir: Path) -> UInt64Array:
    """uint64 [N, 2], what the images that were trained on are known by, if the run recorded it."""
    path = run_dir / HASHES_FILE
    hashes = read_hashes(path) if path.is_file() else {}
    return hashes["train"].digests if "train" in hashes else np.empty((0, 2), np.uint64)


def _load(samples: Samples, record: RunRecord, test: UInt64Array, description: str) -> tuple[UInt8Array, Int64Array]:
    """The images and labels of `samples`, without those that are test images too."""
    images, labels = load_images(samples, record.preprocessing, description=description)
    is_test = is_among(digests_of(images), test)
    if is_test.all():
        cure = "keep each image in one split only and train again (leaks.json in the run lists them)"
        if record.status == "imported":
            cure = "import again with other images in train/ than in test/, or with one of the two: --data FOLDER"
        raise ExportError(
            f"{description}: all {len(images)} are test images too, pixel by pixel, and an export must not look at "
            f"those; {cure}"
        )
    if is_test.any():
        found = f"{int(is_test.sum())} of {len(images)}"
        print(f"{description}: {found} are test images too and were left out", file=sys.stderr)
    return images[~is_test], labels[~is_test]
