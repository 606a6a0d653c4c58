"""Labelled images: one file per data set, all opened through `open_dataset`.

Every data set gives the same `Dataset`: classes, and disjoint train, val and test samples.  A set without an
official val split gives up a stratified, seeded `val_fraction` of its training images.

A set's file is imported when it is opened: this package loads neither torch nor scikit-learn.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from samdeploy.bundle.names import JUDGED_FOLDER
from samdeploy.data.dataset import Dataset, OptionValue
from samdeploy.data.protocol import HONEST, PROTOCOLS, apply_protocol
from samdeploy.errors import InputError, PackageMissing, unknown
from samdeploy.files import expanded

NO_OPTIONS: Mapping[str, OptionValue] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """One line of `DATASETS`.

    Attributes:
        opener: "module:function".
        description: one line for people.
        options: name -> values it may take; the first is the default.
        texts: names of options that take any text; "" is the default.
        has_files: False where the images come with a package, so that no folder of data is ever read.
        can_download: whether `open_dataset` can fetch the files.
        holds: "module:function" that says whether a folder holds the files; of a set that is also looked for where the
            system keeps it, so that a folder without them would go unnoticed.
    """

    opener: str
    description: str
    options: Mapping[str, tuple[OptionValue, ...]] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    has_files: bool = True
    can_download: bool = True
    holds: str | None = None


DATASETS: Mapping[str, DatasetEntry] = MappingProxyType(
    {
        "digits": DatasetEntry(
            "samdeploy.data.sets.digits:open_digits",
            "1,797 digits of 8x8, 10 classes, inside scikit-learn: no files needed",
            has_files=False,
            can_download=False,
        ),
        "fashion-mnist": DatasetEntry(
            "samdeploy.data.sets.fashion_mnist:open_fashion_mnist",
            "70,000 articles of clothing of 28x28, 10 classes",
            holds="samdeploy.data.sets.fashion_mnist:holds_files",
        ),
        "cifar10": DatasetEntry("samdeploy.data.sets.cifar:open_cifar10", "60,000 images of 32x32, 10 classes"),
        "cifar100": DatasetEntry("samdeploy.data.sets.cifar:open_cifar100", "60,000 images of 32x32, 100 classes"),
        "aircraft": DatasetEntry(
            "samdeploy.data.sets.aircraft:open_aircraft",
            "FGVC-Aircraft: 10,000 photographs, 100 variants, 70 families or 30 manufacturers",
            {"level": ("variant", "family", "manufacturer"), "merge_val": (False, True), "banner": ("cut", "keep")},
        ),
        "folder": DatasetEntry(
            "samdeploy.data.sets.folder:open_folder", "your own images, one folder per class", can_download=False
        ),
        "table": DatasetEntry(
            "samdeploy.data.sets.table:open_table",
            "your own images, listed in CSV, TSV, JSON lines or Parquet",
            texts=("path_column", "label_column", "split_column"),
            can_download=False,
        ),
        "shards": DatasetEntry(
            "samdeploy.data.sets.shards:open_shards",
            "your own images in tar files, as webdataset has them",
            texts=("label_key",),
            can_download=False,
        ),
        JUDGED_FOLDER: DatasetEntry(
            "samdeploy.data.sets.judged_folder:open_judged_folder",
            "images that an imported network is judged on, one folder per class; a fixed part is set aside",
            can_download=False,
        ),
    }
)


def open_dataset(
    name: str,
    root: Path = Path("data"),
    *,
    options: Mapping[str, OptionValue] = NO_OPTIONS,
    val_fraction: float = 0.1,
    seed: int = 0,
    download: bool = False,
) -> Dataset:
    """Open a data set; images in files are listed now and decoded when they are asked for.

    The same files, options, `val_fraction` and `seed` give the same splits; test depends on none of them but
    the files.

    Args:
        name: a key of `DATASETS`.
        root: the folder that holds the set's own folder (see each file); for "folder", "table" and "shards", where
            the images are.
        options: of this set, see `DatasetEntry.options`; what is left out takes its default.  Every set has "protocol",
            one of `samdeploy.data.protocol.PROTOCOLS`.
        val_fraction: of the training images, in (0, 1); for a set without an official val split.
        seed: of that split, 0 or more.
        download: fetch what is missing into `root`, where the set can be had by itself.

    Raises:
        InputError: unknown name, option or option value, or `val_fraction` or `seed` out of range.
        DatasetError: files are missing, damaged or contradict one another; or a download failed.
        PackageMissing: a package that this set needs is not installed.
    """
    if name not in DATASETS:
        raise InputError(unknown("data set", name, DATASETS))
    if not 0 < val_fraction < 1:
        raise InputError(f"val_fraction {val_fraction:g} found, a number above 0 and below 1 expected")
    if not 0 <= seed < 2**32:
        raise InputError(f"seed {seed} found, 0 to {2**32 - 1} expected")
    entry = DATASETS[name]
    protocol = options.get("protocol", HONEST)
    if protocol not in PROTOCOLS:
        raise InputError(unknown(f"option protocol of data set {name!r}", str(protocol), PROTOCOLS))
    own = {option: value for option, value in options.items() if option != "protocol"}
    complete = _complete_options(name, entry, own)
    try:
        opener = _function(entry.opener)
    except ModuleNotFoundError as error:
        raise PackageMissing(
            f"data set {name!r} needs the package {error.name}, which is not installed: pip install 'samdeploy[train]'"
        ) from error
    dataset: Dataset = opener(expanded(root), options=complete, val_fraction=val_fraction, seed=seed, download=download)
    return apply_protocol(dataset, str(protocol))


def check_folder(name: str, root: Path | None, subject: str, *, download: bool = False) -> None:
    """Refuse a folder that somebody named and that would not be read; None is always fine.

    Args:
        name: of the data set; an unknown one is for `open_dataset` to refuse.
        subject: "the bundle's", "the run's" or "the recipe's".
        download: whether what is missing in the folder will be fetched into it.

    Raises:
        InputError: the set is part of a package, or would be taken from another place than this folder.
    """
    if root is None or name not in DATASETS:
        return
    entry = DATASETS[name]
    if not entry.has_files:
        other = (
            "To train on them: samdeploy train" if "recipe" in subject else "To classify them: samdeploy predict BUNDLE"
        )
        raise InputError(
            f"{root}: {subject} data set {name!r} is built in and takes no folder; leave --data out. {other} {root}"
        )
    if entry.holds is not None and not download and not _function(entry.holds)(expanded(root)):
        raise InputError(
            f"{root}: holds no files of {subject} data set {name!r}, or there is no such folder; name the folder that "
            "holds them, or leave it out: they are then looked for where the system keeps them, too"
        )


def _function(where: str) -> Any:
    """What "module:function" names."""
    module, function = where.split(":")
    return getattr(importlib.import_module(module), function)


def _complete_options(name: str, entry: DatasetEntry, options: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
    known = (*entry.options, *entry.texts)
    wrong = [option for option in options if option not in known]
    if wrong:
        if not known:
            raise InputError(f"data set {name!r} has no option but protocol; found: {', '.join(wrong)}. Remove them")
        valid_names = (*known, "protocol")
        raise InputError("; ".join(unknown(f"option of data set {name!r}", option, valid_names) for option in wrong))
    for option, value in options.items():
        if option in entry.texts:
            continue
        valid = entry.options[option]
        # By type too: 1 == True, but a recipe that says 1 for a switch has something else in mind.
        if not any(type(value) is type(choice) and value == choice for choice in valid):
            raise InputError(
                f"data set {name!r}: option {option} = {value!r} found, one of {', '.join(map(repr, valid))} expected"
            )
    defaults = {option: valid[0] for option, valid in entry.options.items()} | dict.fromkeys(entry.texts, "")
    # A text that looks like a number, such as the name of a column, comes from the command line as a number.
    return defaults | {option: str(value) if option in entry.texts else value for option, value in options.items()}
