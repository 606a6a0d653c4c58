"""What is wrong with images is found at import, and nothing is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from samdeploy.bundle import open_bundle
from samdeploy.data import open_dataset
from samdeploy.errors import DatasetError
from samdeploy.evaluate.test_set.open import open_test_set
from samdeploy.export import ExportOptions, export_run
from samdeploy.importing.images import open_images
from samdeploy.importing.importing import import_network
from samdeploy.runs.record import open_run
from tests.data.sets.test_shards import write_tar
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
    found = open_images(tmp_path)
    warned = [line for line in capsys.readouterr().err.splitlines() if "test images too" in line]
    assert sum(int(line.split()[1]) for line in warned) == 3  # in train or val, which is cut off it
    assert sum(int(note.split()[0]) for note in found.notes) == 3
    shutil.copytree(train, test, dirs_exist_ok=True)
    with pytest.raises(
        DatasetError,
        match=r"^34 of 34 images of train are test images too, byte for byte, for example .*train/.* = .*t",
    ):
        open_images(tmp_path)


def packed(root: Path, file: Path) -> Path:
    """The class folders of `root` as one tar."""
    members = {}
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        members |= {f"{number}.png": path.read_bytes(), f"{number}.cls": path.parent.name.encode()}
    return write_tar(file, members)


def test_images_in_a_tar(tmp_path: Path) -> None:
    tar = packed(class_folders(tmp_path / "a", dict.fromkeys(CLASSES, 30)), tmp_path / "a.tar")
    run = import_network(
        options(saved(tmp_path / "w.pth", state_of()), tmp_path, data=tar), runs_root=tmp_path / "runs"
    )
    record = open_run(run)
    assert record.data_root == str(tar) and record.counts == {"val": 32, "test": 58}
    bundle = open_bundle(export_run(run, ExportOptions(engine="onnxruntime", precision="fp32", cam=False)).bundle)
    aside = set(open_dataset("judged-folder", tar).val.names)
    # As `eval` opens them: where the import found them, and anywhere else.
    (tmp_path / "moved").mkdir()
    moved = shutil.copy(tar, tmp_path / "moved" / "a.tar")
    for data in (None, tar, moved):
        judged = {name.rpartition("/")[2] for name in open_test_set(bundle, data).samples.names}
        assert len(judged) == 58 and judged.isdisjoint(name.rpartition("/")[2] for name in aside)
    others = packed(class_folders(tmp_path / "b", dict.fromkeys(CLASSES, 30)), tmp_path / "b.tar")
    assert len(open_test_set(bundle, others).samples) == 90


def test_broken_image_in_a_tar_is_named(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "a", dict.fromkeys(CLASSES, 30))
    broken = root / "cat" / "0.png"  # the first of all
    broken.write_bytes(broken.read_bytes()[:100])
    source = options(saved(tmp_path / "w.pth", state_of()), tmp_path, data=packed(root, tmp_path / "a.tar"))
    with pytest.raises(
        DatasetError, match=r"^1 of 90 images cannot be read; replace or remove them:\n.*/a\.tar:0\.png: "
    ):
        import_network(source, runs_root=tmp_path / "runs")
