"""FGVC-Aircraft 2013b: 10,000 photographs of aircraft (S. Maji et al., arXiv:1306.5151).

The photographs may be used for non-commercial research only.  The authors ask that the banner with the
photographer's name, the lowest 20 rows, is cut off; it is, before anything else sees the image, unless the published
protocol is repeated, which left it in.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.datasets import FGVCAircraft

from samdeploy.arrays import UInt8Array, UInt64Array
from samdeploy.data.dataset import Dataset, OptionValue, Samples, file_stamps
from samdeploy.data.sets.download import downloading, fetch_folder
from samdeploy.data.split import hold_out
from samdeploy.data.stored import read_file
from samdeploy.errors import DatasetError, DatasetMissing, ImageError
from samdeploy.images.decode import decode

FOLDER = "fgvc-aircraft-2013b"
BANNER_ROWS = 20

_URL = f"https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/{FOLDER}.tar.gz"
_MD5 = "d4acdd33327262359767eeaa97a4f732"
_CLASS_FILES = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}


def open_aircraft(
    root: Path, *, options: Mapping[str, OptionValue], val_fraction: float, seed: int, download: bool
) -> Dataset:
    """FGVC-Aircraft from ``root/fgvc-aircraft-2013b``.

    Options:
        level: "variant" (100 classes), "family" (70) or "manufacturer" (30).
        merge_val: False takes the official splits: 3,334 train, 3,333 val, and `val_fraction` is not used.  True
            joins the two (6,667) and holds out `val_fraction` of them as val.  Test is the official 3,333 in both.
        banner: "cut" takes the lowest 20 rows off, "keep" leaves them.

    Raises:
        DatasetError: files are missing, malformed or contradict one another, or the download failed.
    """
    if root.name == FOLDER:  # the data set's own folder was given instead of the one that holds it
        root = root.parent
    level, merge_val, banner = str(options["level"]), bool(options["merge_val"]), options["banner"] == "keep"
    cure = f"Get {_URL} (2.75 GB, md5 {_MD5}) and unpack it: `mkdir -p {root} && tar -xzf {FOLDER}.tar.gz -C {root}`"
    if download and not (root / FOLDER).is_dir():
        with downloading("aircraft", cure, root, FOLDER):
            fetch_folder(_URL, _MD5, root, FOLDER)
    parts = ("trainval", "test") if merge_val else ("train", "val", "test")
    _check_files(root, level, parts, cure)
    official = {part: _official(root, level, part) for part in parts}
    classes = tuple(official["test"].classes)
    _check_disjoint({part: source._image_files for part, source in official.items()})
    samples = {part: _samples(source, banner) for part, source in official.items()}
    if merge_val:
        train, val = hold_out(samples["trainval"], val_fraction, seed, classes=classes, part="val", dataset="aircraft")
    else:
        train, val = samples["train"], samples["val"]
    return Dataset("aircraft", classes, train, val, samples["test"], cut=("val",) if merge_val else ())


def _check_files(root: Path, level: str, parts: tuple[str, ...], cure: str) -> None:
    data = root / FOLDER / "data"
    wanted = [data / _CLASS_FILES[level], *(data / f"images_{level}_{part}.txt" for part in parts)]
    missing = [str(path) for path in wanted if not path.is_file()]
    if not (data / "images").is_dir():
        missing.append(f"{data / 'images'}/")
    if missing:
        raise DatasetMissing(f"aircraft: missing: {', '.join(missing)}. {cure}")


def _official(root: Path, level: str, part: str) -> Any:
    file = root / FOLDER / "data" / f"images_{level}_{part}.txt"
    try:
        official = FGVCAircraft(root, split=part, annotation_level=level)
    except KeyError as error:
        raise DatasetError(
            f"{file}: {level} {error} found, which is not in {_CLASS_FILES[level]}; unpack the archive again"
        ) from error
    except ValueError as error:
        raise DatasetError(f"{file}: a line is not 'ID NAME' ({error}); unpack the archive again") from error
    if not len(official):
        raise DatasetError(f"{file}: no images listed; unpack the archive again")
    return official


def _check_disjoint(files: Mapping[str, list[str]]) -> None:
    seen: dict[str, str] = {}
    for part, paths in files.items():
        for path in paths:
            if seen.setdefault(path, part) != part:
                raise DatasetError(
                    f"aircraft: image {Path(path).stem} is listed in both {seen[path]} and {part}; "
                    "the official splits share none, unpack the archive again"
                )


def _samples(official: Any, banner: bool) -> Samples:
    paths = tuple(official._image_files)
    return Samples(
        labels=np.asarray(official._labels, dtype=np.int64),
        names=paths,
        load=partial(_load, paths, banner),
        stamps=partial(_stamps, paths, banner),
        read=partial(read_file, paths),
    )


def _load(paths: tuple[str, ...], banner: bool, index: int) -> UInt8Array:
    image = decode(Path(paths[index]))
    if banner:
        return image
    if image.shape[0] <= BANNER_ROWS:
        raise ImageError(
            f"{paths[index]}: {image.shape[0]} rows found, more than the {BANNER_ROWS} of the banner expected"
        )
    return np.ascontiguousarray(image[:-BANNER_ROWS])


def _stamps(paths: tuple[str, ...], banner: bool) -> UInt64Array:
    stamps = file_stamps(paths)
    return ~stamps if banner else stamps  # other pixels of the same files
