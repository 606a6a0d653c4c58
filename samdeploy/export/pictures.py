"""The pictures an export looks at: golden ones of val, calibration ones of train, never one of test.

What a bundle is judged on must not be what it was tuned or checked with while it was made.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from samdeploy.backends.session import UInt8Array
from samdeploy.data import open_dataset
from samdeploy.data.dataset import Dataset, Int64Array, Samples
from samdeploy.data.images import load_images
from samdeploy.run import RunRecord
from samdeploy.spec import Preprocessing

# Enough for every batch size that an export is checked at, and under a megabyte at 192 px.
GOLDEN_IMAGES = 8
# Largest values settle quickly: more pictures move the largest activation by less than a bit.
CALIBRATION_IMAGES = 128


@dataclass(frozen=True, slots=True)
class ExportPictures:
    """Prepared pictures, uint8 [n, H, W, 3] RGB, each set spread over the classes.

    Attributes:
        golden: of the validation split; they travel with the bundle.
        calibration: of the training split; activations are measured on them.
    """

    golden: UInt8Array
    calibration: UInt8Array


def export_pictures(record: RunRecord, data_root: Path | None) -> ExportPictures:
    """Read them from the data set that the run was trained on.

    Args:
        record: names the data set, its options and its split.
        data_root: where it lies now; None: where training found it.

    Raises:
        DatasetError: it is not there, or a picture is damaged.
    """
    dataset = _dataset(record, data_root)
    return ExportPictures(
        golden=_spread(dataset.val, GOLDEN_IMAGES, record.preprocessing, "golden images"),
        calibration=_spread(dataset.train, CALIBRATION_IMAGES, record.preprocessing, "calibration images"),
    )


def validation_pictures(record: RunRecord, data_root: Path | None) -> tuple[UInt8Array, Int64Array]:
    """The whole validation split: uint8 [n, H, W, 3] and labels int64 [n]; see `export_pictures`."""
    return load_images(_dataset(record, data_root).val, record.preprocessing, description="validation images")


def _dataset(record: RunRecord, data_root: Path | None) -> Dataset:
    root = data_root or Path(record.data_root)
    return open_dataset(
        record.dataset, root, options=record.data_options, val_fraction=record.val_fraction, seed=record.split_seed
    )


def _spread(samples: Samples, count: int, preprocessing: Preprocessing, description: str) -> UInt8Array:
    """At most `count` pictures at equal distances through the classes in order."""
    by_class = np.argsort(samples.labels, kind="stable")
    picks = by_class[np.linspace(0, len(by_class) - 1, min(count, len(by_class))).round().astype(np.int64)]
    images, _ = load_images(samples.take(picks), preprocessing, description=description)
    return images
