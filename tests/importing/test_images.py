"""What is wrong with images is found at import, and nothing is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from samdeploy.errors import DatasetError
from samdeploy.importing.images import open_images
from samdeploy.importing.importing import import_network
from tests.importing.imported import CLASSES, class_folders, options, saved, state_of


def test_broken_test_images_are_named(tmp_path: Path) -> None:
    root = tmp_path / "data"
    class_folders(root / "train", dict.fromkeys(CLASSES, 22))
    class_folders(root / "test", dict.fromkeys(CLASSES, 3))
    broken = root / "test" / "dog" / "1.png"
    broken.write_bytes(broken.read_bytes()[:100])
    source = options(saved(tmp_path / "w.pth", state_of()), tmp_path, data=root)
    with pytest.raises(DatasetError, match=r"^1 of 75 images cannot be read; replace or remove them:\n.*dog/1\.png: "):
        import_network(source, runs_root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_images_in_two_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = class_folders(tmp_path / "train", dict.fromkeys(CLASSES, 22))
    test = class_folders(tmp_path / "test", dict.fromkeys(CLASSES, 3))
    open_images(tmp_path)
    assert "too, byte for byte" not in capsys.readouterr().err
    for number in range(3):
        shutil.copy(train / "cat" / f"{number}.png", test / "cat" / f"copy-{number}.png")
    open_images(tmp_path)
    warned = [line for line in capsys.readouterr().err.splitlines() if "test images too" in line]
    assert sum(int(line.split()[1]) for line in warned) == 3  # in train or val, which is cut off it
    shutil.copytree(train, test, dirs_exist_ok=True)
    with pytest.raises(
        DatasetError,
        match=r"^34 of 34 images of train are test images too, byte for byte, for example .*train/.* = .*t",
    ):
        open_images(tmp_path)
