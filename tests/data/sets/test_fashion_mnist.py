from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from samdeploy.data import check_folder, open_dataset
from samdeploy.data.sets import fashion_mnist
from samdeploy.errors import DatasetError, InputError

Arrays = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def no_debian_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The tests must not find a package that happens to be installed."""
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")


@pytest.mark.parametrize("place", ["root", "root/FashionMNIST/raw", "debian"])
@pytest.mark.parametrize("suffix", [".gz", ""])
def test_reads_packed_and_plain_files_in_all_places(
    tmp_path: Path, clothing: Callable[..., Arrays], place: str, suffix: str
) -> None:
    arrays = clothing(tmp_path / place, suffix)
    dataset = open_dataset("fashion-mnist", tmp_path / "root", val_fraction=0.2)
    assert dataset.classes[0] == "T-shirt/top"
    assert dataset.classes[9] == "Ankle boot"
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (160, 40, 30)
    assert dataset.test.labels.tolist() == arrays["t10k-labels-idx1-ubyte"].tolist()
    image = dataset.test.load(29)
    assert image.shape == (28, 28, 3)
    for channel in range(3):
        assert np.array_equal(image[:, :, channel], arrays["t10k-images-idx3-ubyte"][29])
    assert dataset.test.names[29] == f"t10k-images-idx3-ubyte{suffix}[29]"


def test_a_folder_that_is_named_must_hold_the_files(tmp_path: Path, clothing: Callable[..., Arrays]) -> None:
    clothing(tmp_path / "debian")  # where they would be found without a word
    clothing(tmp_path / "own")
    (tmp_path / "empty").mkdir()
    check_folder("fashion-mnist", tmp_path / "own", "the bundle's")
    check_folder("fashion-mnist", None, "the bundle's")
    check_folder("fashion-mnist", tmp_path / "new", "the recipe's", download=True)
    for name in ("empty", "nowhere"):
        with pytest.raises(InputError, match=f"{name}: holds no files of the bundle's data set 'fashion-mnist'"):
            check_folder("fashion-mnist", tmp_path / name, "the bundle's")
    open_dataset("fashion-mnist", tmp_path / "nowhere")  # where a run says it was: it may have come from the system


def test_val_is_a_stratified_part_of_train(tmp_path: Path, clothing: Callable[..., Arrays]) -> None:
    arrays = clothing(tmp_path)
    dataset = open_dataset("fashion-mnist", tmp_path, seed=3)
    assert np.bincount(dataset.train.labels).tolist() == [18] * 10
    assert np.bincount(dataset.val.labels).tolist() == [2] * 10
    assert set(dataset.train.names).isdisjoint(dataset.val.names)
    for samples in (dataset.train, dataset.val):
        for index, name in enumerate(samples.names):
            place = int(name.rsplit("[", 1)[1][:-1])
            assert samples.labels[index] == arrays["train-labels-idx1-ubyte"][place]
            assert np.array_equal(samples.load(index)[:, :, 1], arrays["train-images-idx3-ubyte"][place])


def test_the_packed_file_is_preferred(tmp_path: Path, clothing: Callable[..., Arrays]) -> None:
    clothing(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"an unpacking that was cut off")
    assert len(open_dataset("fashion-mnist", tmp_path).train) == 180


def test_loaded_images_belong_to_the_caller(tmp_path: Path, clothing: Callable[..., Arrays]) -> None:
    clothing(tmp_path)
    samples = open_dataset("fashion-mnist", tmp_path).train
    before = samples.load(0)
    samples.load(0)[:] = 0
    assert np.array_equal(samples.load(0), before)


def test_missing_files(tmp_path: Path, clothing: Callable[..., Arrays]) -> None:
    root = tmp_path / "root"
    clothing(root)
    (root / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DatasetError) as error:
        open_dataset("fashion-mnist", root)
    assert str(error.value) == (
        f"fashion-mnist: missing in {root}: t10k-labels-idx1-ubyte[.gz] (also looked in {root / 'FashionMNIST/raw'}, "
        f"{tmp_path / 'debian'}). Run `apt-get install dataset-fashion-mnist` (Debian, Ubuntu), or put the four files "
        f"of https://github.com/zalandoresearch/fashion-mnist/tree/master/data/fashion into {root}"
    )


def test_failed_download_is_one_line_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import FashionMNIST

    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(DatasetError) as error:
        open_dataset("fashion-mnist", tmp_path, download=True)
    text = str(error.value)
    assert text.startswith("fashion-mnist: the download failed: Error downloading train-images-idx3-ubyte.gz: Tried ")
    assert "Connection refused" in text
    assert "apt-get install dataset-fashion-mnist" in text
    assert "\n" not in text


def test_no_download_where_the_files_are_there(tmp_path: Path, clothing: Callable[..., Arrays]) -> None:
    clothing(tmp_path)
    assert len(open_dataset("fashion-mnist", tmp_path, download=True).test) == 30


def test_truncated_packed_file(tmp_path: Path, clothing: Callable[..., Arrays]) -> None:
    clothing(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DatasetError) as error:
        open_dataset("fashion-mnist", tmp_path)
    assert str(error.value).startswith(f"{path}: cannot be unpacked (")
    assert str(error.value).endswith("); remove it and get it again")


def test_truncated_plain_file(tmp_path: Path, clothing: Callable[..., Arrays]) -> None:
    clothing(tmp_path, "")
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DatasetError) as error:
        open_dataset("fashion-mnist", tmp_path)
    assert str(error.value) == (
        f"{path}: 156300 bytes of data found, 156800 expected (200x28x28); it is truncated or damaged, "
        "remove it and get it again"
    )


def test_file_of_another_kind(tmp_path: Path, clothing: Callable[..., Arrays]) -> None:
    clothing(tmp_path, "")
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes((tmp_path / "t10k-labels-idx1-ubyte").read_bytes())
    with pytest.raises(DatasetError) as error:
        open_dataset("fashion-mnist", tmp_path)
    assert str(error.value) == (
        f"{tmp_path / 't10k-images-idx3-ubyte'}: starts with bytes 00000801, 00000803 expected (idx file of bytes "
        "with 3 dimensions); remove it and get it again"
    )


def test_empty_file(tmp_path: Path, clothing: Callable[..., Arrays]) -> None:
    clothing(tmp_path, "")
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"train-labels-idx1-ubyte: starts with bytes , 00000801 expected"):
        open_dataset("fashion-mnist", tmp_path)


def test_counts_that_differ(tmp_path: Path, clothing: Callable[..., Arrays], write_idx: Callable[..., None]) -> None:
    clothing(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.arange(199) % 10)
    with pytest.raises(DatasetError) as error:
        open_dataset("fashion-mnist", tmp_path)
    assert str(error.value) == (
        f"fashion-mnist: 200 images in {tmp_path / 'train-images-idx3-ubyte.gz'} but 199 labels in "
        f"{tmp_path / 'train-labels-idx1-ubyte.gz'}; these files do not belong together, get both again"
    )


def test_foreign_labels(tmp_path: Path, clothing: Callable[..., Arrays], write_idx: Callable[..., None]) -> None:
    clothing(tmp_path)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.arange(30))
    with pytest.raises(DatasetError) as error:
        open_dataset("fashion-mnist", tmp_path)
    assert str(error.value) == (
        f"{tmp_path / 't10k-labels-idx1-ubyte.gz'}: label 29 found, labels 0 to 9 expected; this is not Fashion-MNIST"
    )
