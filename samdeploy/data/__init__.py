"""Labelled images: one file per data set, all opened through `open_dataset`."""

from samdeploy.data.dataset import SPLITS, Dataset, OptionValue, Samples
from samdeploy.data.images import fingerprint, load_images
from samdeploy.data.registry import DATASETS, DatasetEntry, check_folder, open_dataset

__all__ = [
    "DATASETS",
    "SPLITS",
    "Dataset",
    "DatasetEntry",
    "OptionValue",
    "Samples",
    "check_folder",
    "fingerprint",
    "load_images",
    "open_dataset",
]
