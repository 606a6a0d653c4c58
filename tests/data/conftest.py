"""Small data sets in the true on-disk formats; every value is known."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100

BANNER_COLOUR = (255, 0, 255)


@pytest.fixture
def write_idx() -> Callable[..., None]:
    """Write one idx file, packed where the name ends in .gz."""

    def write(path: Path, array: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
        content = header + array.astype(np.uint8).tobytes()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)

    return write


@pytest.fixture
def clothing(write_idx: Callable[..., None]) -> Callable[..., dict[str, np.ndarray]]:
    """Write the four files of Fashion-MNIST: 10 classes, 20 training and 3 test images each, random pixels."""

    def make(folder: Path, suffix: str = ".gz") -> dict[str, np.ndarray]:
        random = np.random.default_rng(7)
        arrays = {}
        for part, per_class in (("train", 20), ("t10k", 3)):
            labels = random.permutation(np.repeat(np.arange(10), per_class))
            arrays[f"{part}-images-idx3-ubyte"] = random.integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
            arrays[f"{part}-labels-idx1-ubyte"] = labels
        for name, array in arrays.items():
            write_idx(folder / f"{name}{suffix}", array)
        return arrays

    return make


class _Python2Pickler(pickle._Pickler):
    """Writes bytes and bools as Python 2 wrote str and numpy's flags: the form that CIFAR's files are in."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_str(self, value: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)

    def save_flag(self, value: bool) -> None:
        self.write(pickle.BININT1 + bytes([value]))

    dispatch[bytes] = save_str
    dispatch[bool] = save_flag


def python2_pickle(value: Any) -> bytes:
    """`value` as Python 2 with the numpy of its time pickled it."""
    file = io.BytesIO()
    _Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"numpy._core.", b"numpy.core.")


@pytest.fixture
def small_cifar10(tmp_path: Path) -> tuple[type[CIFAR10], dict[str, np.ndarray]]:
    """CIFAR-10's files with 20 images per batch, and the class that reads them without md5 sums."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    random = np.random.default_rng(11)
    batches = {}
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        rows = random.integers(0, 256, (20, 3072), dtype=np.uint8)
        batches[name] = rows
        labels = random.permutation(np.repeat(np.arange(10), 2)).tolist()
        entry = {b"data": rows, b"labels": labels, b"batch_label": b"", b"filenames": []}
        (folder / name).write_bytes(python2_pickle(entry))
    names = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]
    meta = {b"label_names": names, b"num_cases_per_batch": 20, b"num_vis": 3072}
    (folder / "batches.meta").write_bytes(python2_pickle(meta))

    class Small(CIFAR10):
        train_list: ClassVar = [[name, None] for name, _ in CIFAR10.train_list]
        test_list: ClassVar = [[name, None] for name, _ in CIFAR10.test_list]
        meta: ClassVar = {**CIFAR10.meta, "md5": None}

    return Small, batches


@pytest.fixture
def small_cifar100(tmp_path: Path) -> tuple[type[CIFAR100], dict[str, np.ndarray]]:
    """CIFAR-100's files with 3 training and 1 test image per class, and the class that reads them."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    random = np.random.default_rng(13)
    batches = {}
    for name, per_class in (("train", 3), ("test", 1)):
        fine = random.permutation(np.repeat(np.arange(100), per_class))
        batches[name] = random.integers(0, 256, (len(fine), 3072), dtype=np.uint8)
        entry = {b"data": batches[name], b"fine_labels": fine.tolist(), b"coarse_labels": (fine // 5).tolist()}
        (folder / name).write_bytes(python2_pickle(entry))
    meta = {
        b"fine_label_names": [f"fine {index}".encode() for index in range(100)],
        b"coarse_label_names": [f"coarse {index}".encode() for index in range(20)],
    }
    (folder / "meta").write_bytes(python2_pickle(meta))

    class Small(CIFAR100):
        train_list: ClassVar = [["train", None]]
        test_list: ClassVar = [["test", None]]
        meta: ClassVar = {**CIFAR100.meta, "md5": None}

    return Small, batches


@pytest.fixture
def aircraft_root(tmp_path: Path) -> Path:
    """An fgvc-aircraft-2013b tree: 4 variants in 3 families of 2 manufacturers; 4 train, 3 val, 2 test images each.

    Image number i is 40 rows of grey i and below them 20 rows in BANNER_COLOUR, 50 columns wide.
    """
    data = tmp_path / "fgvc-aircraft-2013b" / "data"
    (data / "images").mkdir(parents=True)
    variants = {
        "707-320": ("Boeing 707", "Boeing"),
        "737-200": ("Boeing 737", "Boeing"),
        "737-300": ("Boeing 737", "Boeing"),
        "Hawk T1": ("Hawk T1", "British Aerospace"),
    }
    names = {
        "variant": {variant: variant for variant in variants},
        "family": {variant: family for variant, (family, _) in variants.items()},
        "manufacturer": {variant: maker for variant, (_, maker) in variants.items()},
    }
    for level, file in (("variant", "variants"), ("family", "families"), ("manufacturer", "manufacturers")):
        (data / f"{file}.txt").write_text("".join(f"{name}\n" for name in dict.fromkeys(names[level].values())))
    number = 0
    lines: dict[tuple[str, str], list[str]] = {}
    for part, per_class in (("train", 4), ("val", 3), ("test", 2)):
        for variant in list(variants) * per_class:
            pixels = np.full((60, 50, 3), number, dtype=np.uint8)
            pixels[40:] = BANNER_COLOUR
            Image.fromarray(pixels).save(data / "images" / f"{number:07}.jpg", quality=95, subsampling=0)
            for level in names:
                for listed in (part, "trainval") if part != "test" else (part,):
                    lines.setdefault((level, listed), []).append(f"{number:07} {names[level][variant]}\n")
            number += 1
    for (level, listed), text in lines.items():
        (data / f"images_{level}_{listed}.txt").write_text("".join(text))
    return tmp_path


@pytest.fixture
def image_tree() -> Callable[..., None]:
    """Write PNG images of 6x5 pixels in one colour per file: {"train/cat/1.png": 10, ...}."""

    def make(root: Path, files: Mapping[str, int]) -> None:
        for name, grey in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((6, 5, 3), grey, dtype=np.uint8)).save(path)

    return make


@pytest.fixture
def image_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a cache of prepared images of this test's own."""
    monkeypatch.setenv("SAMDEPLOY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """A folder of two classes of twelve random training images, 20x16, as PNG files."""
    random = np.random.default_rng(5)
    for label in ("a", "b"):
        for number in range(12):
            path = tmp_path / "data" / "train" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (16, 20, 3), dtype=np.uint8)).save(path)
    return tmp_path / "data"
