"""An entry of the cache of prepared images on disk: every byte of it is checked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from samdeploy.bundle.spec import Preprocessing
from samdeploy.data import Samples, cache_entry, open_dataset
from samdeploy.data.cache import entry_path, prepare_split
from samdeploy.data.cache_entry import DamagedCache, open_entry

SIZE = Preprocessing(12, 9)

pytestmark = pytest.mark.usefixtures("image_cache")


@pytest.fixture
def train(noise: Path) -> Samples:
    return open_dataset("folder", noise).train


def flipped(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.unlink()  # what is mapped stays as it is
    file.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    **{f"{name} {place}": lambda entry, name=name, place=place: flipped(entry / f"{name}.npy", place)
       for name in ("images", "stamps", "digests", "perceptual") for place in (1, 70, 135, -1)},
    **{f"record {place}": lambda entry, place=place: flipped(entry / "entry.json", place)
       for place in (0, 5, 30, 200, 400, -20)},
    "short": lambda entry: os.truncate(entry / "images.npy", 1000),
    "long": lambda entry: (entry / "images.npy").open("ab").write(b"x"),
    "no images": lambda entry: (entry / "images.npy").unlink(),
    "no hashes": lambda entry: (entry / "perceptual.npy").unlink(),
    "no record": lambda entry: (entry / "entry.json").unlink(),
    "no object": lambda entry: (entry / "entry.json").write_text("[1]"),
    "other record": lambda entry: (entry / "entry.json").write_text('{"key": {}}'),
    "empty folder": lambda entry: (shutil.rmtree(entry), entry.mkdir()),
    "a file": lambda entry: (shutil.rmtree(entry), entry.write_bytes(b"a text\n")),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_made_again_and_that_is_said(
    damage: str, train: Samples, image_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = np.array(prepare_split(train, SIZE, description="train").images)
    path = entry_path(train, SIZE)
    DAMAGE[damage](path)
    assert np.array_equal(prepare_split(train, SIZE, description="train").images, expected)
    said = capsys.readouterr().err
    assert said.startswith(f"train: the cache {path} is damaged: ")
    assert said.endswith("; they are prepared again\n")
    assert said.count("\n") == 1
    prepare_split(train, SIZE, description="train")
    assert capsys.readouterr().err == ""
    assert {one.suffix for one in image_cache.iterdir()} == {".images", ".lock"}


def test_every_part_of_a_large_entry_is_checked(monkeypatch: pytest.MonkeyPatch, train: Samples) -> None:
    monkeypatch.setattr(cache_entry, "_CHUNK", 1000)
    prepare_split(train, SIZE, description="train")
    path = entry_path(train, SIZE)
    size = (path / "images.npy").stat().st_size
    assert size == 128 + len(train) * 12 * 9 * 3
    assert open_entry(path).images.shape == (len(train), 12, 9, 3)
    for place in range(0, size, 500):
        flipped(path / "images.npy", place)
        with pytest.raises(DamagedCache, match=r"1 of 6 parts of images\.npy have another SHA-256"):
            open_entry(path)
        flipped(path / "images.npy", place)
    os.truncate(path / "images.npy", 4000)
    with pytest.raises(DamagedCache, match=r"images\.npy has 4,000 bytes"):
        open_entry(path)


def test_numpy_reads_an_entry(train: Samples) -> None:
    found = prepare_split(train, SIZE, description="train")
    assert np.array_equal(np.load(entry_path(train, SIZE) / "images.npy"), found.images)
