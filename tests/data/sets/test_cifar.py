from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from samdeploy.data import Dataset, open_dataset
from samdeploy.data.sets.cifar import open_cifar
from samdeploy.errors import DatasetError

Small = tuple[Any, dict[str, np.ndarray]]


def opened(name: str, source: Any, root: Path, seed: int = 0) -> Dataset:
    return open_cifar(name, source, root, val_fraction=0.1, seed=seed, download=False)


def test_cifar10_counts_classes_and_pixels(tmp_path: Path, small_cifar10: Small) -> None:
    source, batches = small_cifar10
    dataset = opened("cifar10", source, tmp_path)
    assert " ".join(dataset.classes) == "airplane automobile bird cat deer dog frog horse ship truck"
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (90, 10, 20)
    assert np.bincount(dataset.val.labels).tolist() == [1] * 10
    # A row is 1,024 red, 1,024 green and 1,024 blue values.
    rows = np.concatenate([batches[f"data_batch_{number}"] for number in range(1, 6)])
    seen = []
    for samples in (dataset.train, dataset.val):
        for index, name in enumerate(samples.names):
            place = int(name.removeprefix("cifar10 train[")[:-1])
            seen.append(place)
            image = samples.load(index)
            assert image.shape == (32, 32, 3)
            for channel in range(3):
                plane = rows[place, channel * 1024 : (channel + 1) * 1024].reshape(32, 32)
                assert np.array_equal(image[:, :, channel], plane)
    assert sorted(seen) == list(range(100))
    assert dataset.test.load(19)[31, 31].tolist() == batches["test_batch"][19, [1023, 2047, 3071]].tolist()


def test_cifar10_labels_follow_their_images(tmp_path: Path, small_cifar10: Small) -> None:
    source, _ = small_cifar10
    labels = []
    for number in range(1, 6):
        content = (tmp_path / f"cifar-10-batches-py/data_batch_{number}").read_bytes()
        labels += pickle.loads(content, encoding="bytes")[b"labels"]
    dataset = opened("cifar10", source, tmp_path)
    for samples in (dataset.train, dataset.val):
        places = [int(name.removeprefix("cifar10 train[")[:-1]) for name in samples.names]
        assert samples.labels.tolist() == [labels[place] for place in places]


def test_same_seed_same_split(tmp_path: Path, small_cifar10: Small) -> None:
    source, _ = small_cifar10
    first, again, other = (opened("cifar10", source, tmp_path, seed).val.names for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_cifar100_takes_the_fine_classes(tmp_path: Path, small_cifar100: Small) -> None:
    source, batches = small_cifar100
    dataset = open_cifar("cifar100", source, tmp_path, val_fraction=1 / 3, seed=0, download=False)
    assert dataset.classes[:2] == ("fine 0", "fine 1")
    assert len(dataset.classes) == 100
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (200, 100, 100)
    assert np.bincount(dataset.val.labels).tolist() == [1] * 100
    assert dataset.test.load(7)[0, 0].tolist() == batches["test"][7, [0, 1024, 2048]].tolist()


def test_the_own_folder_may_be_given_as_root(tmp_path: Path, small_cifar10: Small) -> None:
    source, _ = small_cifar10
    assert len(opened("cifar10", source, tmp_path / "cifar-10-batches-py").test) == 20


@pytest.mark.parametrize(
    ("name", "folder", "count", "files", "md5"),
    [
        (
            "cifar10",
            "cifar-10-batches-py",
            7,
            "data_batch_1 data_batch_2 data_batch_3 data_batch_4 data_batch_5 test_batch batches.meta",
            "c58f30108f718f92721af3b95e74349a",
        ),
        ("cifar100", "cifar-100-python", 3, "train test meta", "eb9058c3a382ffc7106e4002c42a8d85"),
    ],
)
def test_nothing_there(tmp_path: Path, name: str, folder: str, count: int, files: str, md5: str) -> None:
    archive = f"{name.replace('cifar', 'cifar-')}-python.tar.gz"
    with pytest.raises(DatasetError, match=f"^{name}: {tmp_path / folder} does not exist. Get "):
        open_dataset(name, tmp_path)
    (tmp_path / folder).mkdir()
    with pytest.raises(DatasetError) as error:
        open_dataset(name, tmp_path)
    assert str(error.value) == (
        f"{name}: {count} of {count} files in {tmp_path / folder} are missing or damaged: "
        f"{', '.join(f'{file} (missing)' for file in files.split())}. Get https://www.cs.toronto.edu/~kriz/{archive} "
        f"(md5 {md5}) and unpack it: `mkdir -p {tmp_path} && tar -xzf {archive} -C {tmp_path}`, "
        f"so that {tmp_path / folder} holds the files"
    )


class Marker:
    """Unpickling this creates a file: what a hostile data set would do with any command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (self.path,)


def test_a_foreign_pickle_is_never_loaded(tmp_path: Path, small_cifar10: Small) -> None:
    marker = tmp_path / "code was run"
    hostile = pickle.dumps(Marker(marker))
    pickle.loads(hostile)
    assert marker.exists()  # the attack works where the file is loaded
    marker.unlink()
    for file in (tmp_path / "cifar-10-batches-py").iterdir():
        file.write_bytes(hostile)
    with pytest.raises(DatasetError) as error:
        open_dataset("cifar10", tmp_path)
    assert "cifar10: 7 of 7 files" in str(error.value)
    assert "test_batch (md5 sum differs from 40351d587109b95175f43aff81a1287e)" in str(error.value)
    assert "batches.meta (md5 sum differs from 5ff9c542aee3614f3951f8cda6e48888)" in str(error.value)
    assert not marker.exists()


def test_failed_download_is_one_line_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(DatasetError) as error:
        open_dataset("cifar10", tmp_path, download=True)
    text = str(error.value)
    assert text.startswith("cifar10: the download failed: <urlopen error [Errno 111] Connection refused>. Get http")
    assert f"`mkdir -p {tmp_path} && tar -xzf cifar-10-python.tar.gz -C {tmp_path}`" in text
    assert "\n" not in text
