"""CIFAR-10 and CIFAR-100: 50,000 + 10,000 images of 32x32 in 10 or 100 classes (A. Krizhevsky, 2009).

The files are Python pickles, and loading a pickle runs code.  torchvision compares the md5 sum of every file
with the published one before it opens any of them, so only the authors' own pickles are ever loaded; there is
no option that turns this off.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.utils import check_integrity

from samdeploy.data.dataset import Dataset, OptionValue, Samples, array_samples
from samdeploy.data.sets.download import downloading
from samdeploy.data.split import hold_out
from samdeploy.errors import DatasetMissing


def open_cifar10(
    root: Path, *, options: Mapping[str, OptionValue], val_fraction: float, seed: int, download: bool
) -> Dataset:
    """CIFAR-10 from ``root/cifar-10-batches-py``; `val_fraction` of the official training set becomes val.

    Raises:
        DatasetError: files are missing or their md5 sums differ, or the download failed.
    """
    return open_cifar("cifar10", CIFAR10, root, val_fraction=val_fraction, seed=seed, download=download)


def open_cifar100(
    root: Path, *, options: Mapping[str, OptionValue], val_fraction: float, seed: int, download: bool
) -> Dataset:
    """CIFAR-100, the 100 fine classes, from ``root/cifar-100-python``; otherwise as `open_cifar10`."""
    return open_cifar("cifar100", CIFAR100, root, val_fraction=val_fraction, seed=seed, download=download)


def open_cifar(name: str, source: Any, root: Path, *, val_fraction: float, seed: int, download: bool) -> Dataset:
    """Open `source`, torchvision's class for one of the two sets.

    Raises:
        DatasetError: as `open_cifar10`.
    """
    if root.name == source.base_folder:  # the data set's own folder was given instead of the one that holds it
        root = root.parent
    cure = (
        f"Get {source.url} (md5 {source.tgz_md5}) and unpack it: `mkdir -p {root} && tar -xzf {source.filename} -C "
        f"{root}`, so that {root / source.base_folder} holds the files"
    )
    if download and _faults(source, root):
        with downloading(name, cure, root, source.base_folder):
            source(root, download=True)
    # Checked here for a text that names the files, and once more by torchvision just before it loads them.
    faults = _faults(source, root)
    if len(faults) == len(_files(source)) and not (root / source.base_folder).exists():
        raise DatasetMissing(f"{name}: {root / source.base_folder} does not exist. {cure}")
    if faults:
        raise DatasetMissing(
            f"{name}: {len(faults)} of {len(_files(source))} files in {root / source.base_folder} are missing or "
            f"damaged: {', '.join(faults)}. {cure}"
        )
    official_train, official_test = source(root, train=True), source(root, train=False)
    classes = tuple(str(label) for label in official_train.classes)
    train, val = hold_out(
        _samples(official_train, f"{name} train"), val_fraction, seed, classes=classes, part="val", dataset=name
    )
    return Dataset(name, classes, train, val, _samples(official_test, f"{name} test"), cut=("val",))


def _files(source: Any) -> list[tuple[str, str | None]]:
    meta = [(source.meta["filename"], source.meta["md5"])]
    return [(file, md5) for file, md5 in [*source.train_list, *source.test_list, *meta]]


def _faults(source: Any, root: Path) -> list[str]:
    faults = []
    for file, md5 in _files(source):
        path = root / source.base_folder / file
        if not path.is_file():
            faults.append(f"{file} (missing)")
        elif not check_integrity(path, md5):
            faults.append(f"{file} (md5 sum differs from {md5})")
    return faults


def _samples(official: Any, source: str) -> Samples:
    images = np.ascontiguousarray(official.data, dtype=np.uint8)
    return array_samples(images, np.asarray(official.targets, dtype=np.int64), source)
