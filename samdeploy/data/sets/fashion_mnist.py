"""Fashion-MNIST: 60,000 + 10,000 grey images of 28x28 in 10 classes (H. Xiao, K. Rasul, R. Vollgraf, 2017).

Read here and not through torchvision, because torchvision refuses Debian's files, whose .gz checksums differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from samdeploy.data.dataset import Dataset, OptionValue, Samples, array_samples
from samdeploy.data.sets.download import downloading
from samdeploy.data.sets.idx import read_idx
from samdeploy.data.split import hold_out
from samdeploy.errors import DatasetError, DatasetMissing

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

# Where Debian's package dataset-fashion-mnist puts them.
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_URL = "https://github.com/zalandoresearch/fashion-mnist/tree/master/data/fashion"


def open_fashion_mnist(
    root: Path, *, options: Mapping[str, OptionValue], val_fraction: float, seed: int, download: bool
) -> Dataset:
    """Fashion-MNIST from `root`, ``root/FashionMNIST/raw`` or Debian's folder, whichever has all four files first.

    The official test set is the test split; `val_fraction` of the official training set becomes val.

    Raises:
        DatasetError: files are missing or damaged, or the download failed.
    """
    folders = (*_below(root), DEBIAN_FOLDER)
    folder = _complete_folder(folders)
    if folder is None and download:
        _download(root)
        folder = _complete_folder(folders)
    if folder is None:
        raise DatasetMissing(_missing_text(root, folders))
    train, val = hold_out(
        _read(folder, "train"), val_fraction, seed, classes=CLASSES, part="val", dataset="fashion-mnist"
    )
    return Dataset("fashion-mnist", CLASSES, train, val, _read(folder, "t10k"), cut=("val",))


def holds_files(root: Path) -> bool:
    """Whether all four files are in `root` or ``root/FashionMNIST/raw``."""
    return _complete_folder(_below(root)) is not None


def _below(root: Path) -> tuple[Path, ...]:
    return root, root / "FashionMNIST" / "raw"


def _complete_folder(folders: tuple[Path, ...]) -> Path | None:
    for folder in folders:
        if all(_found(folder, name) for name in FILES):
            return folder
    return None


def _found(folder: Path, name: str) -> Path | None:
    # The packed file first: it carries a checksum, and an interrupted unpacking leaves a short plain file.
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    return None


def _read(folder: Path, part: str) -> Samples:
    image_file = _found(folder, f"{part}-images-idx3-ubyte")
    label_file = _found(folder, f"{part}-labels-idx1-ubyte")
    if image_file is None or label_file is None:
        raise DatasetError(f"fashion-mnist: files of {folder} vanished while they were read; start again")
    images, labels = read_idx(image_file, 3), read_idx(label_file, 1).astype(np.int64)
    if len(images) != len(labels):
        raise DatasetError(
            f"fashion-mnist: {len(images)} images in {image_file} but {len(labels)} labels in {label_file}; "
            "these files do not belong together, get both again"
        )
    if labels.size == 0 or labels.max() >= len(CLASSES):
        found = f"label {labels.max()}" if labels.size else "no label"
        raise DatasetError(f"{label_file}: {found} found, labels 0 to 9 expected; this is not Fashion-MNIST")
    return array_samples(images, labels, image_file.name)


def _download(root: Path) -> None:
    # Late: torchvision loads torch, which only a download needs.
    from torchvision.datasets import FashionMNIST

    with downloading("fashion-mnist", _cure(root), root, "FashionMNIST"):
        FashionMNIST(root, download=True)


def _missing_text(root: Path, folders: tuple[Path, ...]) -> str:
    # Name what is missing where the search came closest: a folder with three of four files was meant to have all.
    closest = max(folders, key=lambda folder: sum(_found(folder, name) is not None for name in FILES))
    missing = [f"{name}[.gz]" for name in FILES if _found(closest, name) is None]
    return (
        f"fashion-mnist: missing in {closest}: {', '.join(missing)} (also looked in "
        f"{', '.join(str(folder) for folder in folders if folder != closest)}). {_cure(root)}"
    )


def _cure(root: Path) -> str:
    return f"Run `apt-get install dataset-fashion-mnist` (Debian, Ubuntu), or put the four files of {_URL} into {root}"
