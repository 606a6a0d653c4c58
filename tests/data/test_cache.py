"""Prepared images on disk: the same bytes, used again, and never trusted blindly."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy.bundle.spec import Preprocessing
from samdeploy.data import Samples, fingerprint, load_images, open_dataset
from samdeploy.data import cache as cache_module
from samdeploy.data.cache import entry_path, images_folder, prepare_split, stream_prepared
from samdeploy.data.dataset import array_samples
from samdeploy.data.duplicates.image_hashes import hash_images
from samdeploy.errors import DatasetError

SIZE = Preprocessing(12, 9)

pytestmark = pytest.mark.usefixtures("image_cache")


@pytest.fixture
def train(noise: Path) -> Samples:
    return open_dataset("folder", noise).train


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is decoded as a whole split, by description."""
    seen: list[str] = []
    stream = cache_module.stream_images

    def watched(*arguments: object, **named: object) -> object:
        seen.append(str(named["description"]))
        return stream(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(cache_module, "stream_images", watched)
    return seen


def test_the_second_time_nothing_is_decoded_and_everything_is_the_same(
    train: Samples, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    decoded = counted(monkeypatch)
    images, labels = load_images(train, SIZE, description="train")
    hashes = hash_images([images], train.names, train.labels)
    for _ in range(2):
        found = prepare_split(train, SIZE, description="train")
        assert found.is_cached
        assert np.array_equal(found.images, images)
        assert np.array_equal(found.labels, labels)
        assert np.array_equal(found.hashes.digests, hashes.digests)
        assert np.array_equal(found.hashes.perceptual, hashes.perceptual)
        assert found.hashes.names == hashes.names
        assert found.fingerprint == fingerprint(images, labels)
    assert decoded == ["train"]
    assert capsys.readouterr().err == ""


def test_a_write_to_the_mapped_images_stays_in_this_process(train: Samples) -> None:
    found = prepare_split(train, SIZE, description="train")
    before = found.images[0].copy()
    found.images[0] = 0
    assert np.array_equal(prepare_split(train, SIZE, description="train").images[0], before)


def test_another_size_or_another_choice_of_images_is_another_entry(train: Samples) -> None:
    paths = {
        entry_path(train, SIZE),
        entry_path(train, Preprocessing(9, 12)),
        entry_path(train, Preprocessing(12, 9, "center_crop", 14)),
        entry_path(train.take(np.arange(len(train) - 1)), SIZE),
        entry_path(train.take(np.arange(len(train))[::-1]), SIZE),
    }
    assert len(paths) == 5
    # Mean and spread are applied in the network.
    assert entry_path(train, Preprocessing(12, 9, mean=(0, 0, 0))) == entry_path(train, SIZE)


def test_other_labels_get_their_own_fingerprint(train: Samples) -> None:
    prepare_split(train, SIZE, description="train")
    other = Samples(1 - train.labels, train.names, train.load, train.stamps)
    found = prepare_split(other, SIZE, description="train")
    assert found.is_cached
    assert found.fingerprint == fingerprint(np.array(found.images), other.labels)


def test_a_changed_image_is_noticed(train: Samples, capsys: pytest.CaptureFixture[str]) -> None:
    prepare_split(train, SIZE, description="train")
    Image.new("RGB", (20, 16), "red").save(train.names[3])
    found = prepare_split(train, SIZE, description="train")
    assert found.images[3].tolist() == [[[255, 0, 0]] * 9] * 12
    count = len(train)
    assert capsys.readouterr().err == (
        f"train: 1 of {count} images changed since they were cached; they are prepared again\n"
    )


def test_a_changed_image_that_was_given_its_old_time_and_length_is_noticed(
    train: Samples, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_split(train, SIZE, description="train")
    path = Path(train.names[3])
    status, content = path.stat(), bytearray(path.read_bytes())
    Image.fromarray(np.zeros((16, 20, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes().ljust(len(content), b"\0"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert not prepare_split(train, SIZE, description="train").images[3].any()
    assert "1 of" in capsys.readouterr().err


def test_images_that_differ_under_the_same_stamps_are_found_by_decoding_some(
    train: Samples, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_split(train, SIZE, description="train")
    other = Samples(train.labels, train.names, lambda index: 255 - train.load(index), train.stamps)
    found = prepare_split(other, SIZE, description="train")
    assert "differs from its cached image, though its time does not; they are prepared again" in capsys.readouterr().err
    assert np.array_equal(found.images, load_images(other, SIZE, description="train")[0])


def test_an_array_that_changed_is_noticed() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    labels = np.zeros(5, np.int64)
    prepare_split(array_samples(images, labels, "file"), SIZE, description="train")
    other = images.copy()
    other[4, 0, 0] ^= 255
    found = prepare_split(array_samples(other, labels, "file"), SIZE, description="train")
    assert np.array_equal(found.images, load_images(array_samples(other, labels, "file"), SIZE, description="")[0])


def test_an_entry_of_another_pillow_is_made_again(
    train: Samples, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_split(train, SIZE, description="train")
    monkeypatch.setattr("PIL.__version__", "0.1")
    prepare_split(train, SIZE, description="train")
    assert "made by another version of samdeploy, Pillow or libjpeg; they are prepared again" in capsys.readouterr().err


def test_broken_images_are_named_and_leave_no_entry(train: Samples, image_cache: Path) -> None:
    Path(train.names[2]).write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"train: 1 of \d+ images cannot be read"):
        prepare_split(train, SIZE, description="train")
    assert [path.suffix for path in image_cache.iterdir()] == [".lock"]


def test_without_the_cache_nothing_is_written(train: Samples, image_cache: Path) -> None:
    found = prepare_split(train, SIZE, description="train", cache=False)
    assert not found.is_cached
    assert not image_cache.exists()


def test_digits_are_not_worth_a_file(image_cache: Path) -> None:
    assert not prepare_split(open_dataset("digits").val, SIZE, description="val").is_cached
    assert not image_cache.exists()


def test_a_full_disk_costs_the_cache_and_nothing_else(
    train: Samples, image_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    found = prepare_split(train, SIZE, description="train")
    assert not found.is_cached
    assert len(found.images) == len(train)
    assert capsys.readouterr().err == (
        f"train: the images are not cached in {image_cache} (the disk is full; they need 1 MiB), so that each run "
        "decodes them anew; make room there, or name another folder: SAMDEPLOY_CACHE=/path\n"
    )
    assert not list(image_cache.glob(".*.partial"))


def test_a_folder_that_cannot_be_made_costs_the_cache_and_nothing_else(
    train: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAMDEPLOY_CACHE", str(tmp_path / "file"))
    assert not prepare_split(train, SIZE, description="train").is_cached
    said = capsys.readouterr().err
    assert "(Not a directory)" in said
    assert "damaged" not in said


def test_a_cache_on_a_read_only_disk_is_read(
    train: Samples, image_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Root writes where it likes, so the lock's place is taken by a folder: whoever needs the lock would fail."""
    prepare_split(train, SIZE, description="train")
    lock = entry_path(train, SIZE).with_suffix(".lock")
    lock.unlink()
    lock.mkdir()
    assert prepare_split(train, SIZE, description="train").is_cached
    Image.new("RGB", (20, 16), "red").save(train.names[0])
    assert not prepare_split(train, SIZE, description="train").is_cached
    assert "the images are not cached in" in capsys.readouterr().err


def test_of_two_that_ask_at_once_one_waits(
    train: Samples, image_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    decoded = counted(monkeypatch)
    image_cache.mkdir(parents=True)
    with entry_path(train, SIZE).with_suffix(".lock").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        other = threading.Thread(target=prepare_split, args=(train, SIZE), kwargs={"description": "train"})
        other.start()
        time.sleep(0.2)
        assert other.is_alive()
        assert decoded == []
    other.join(20)
    assert decoded == ["train"]
    assert capsys.readouterr().err == "train: another process prepares these images; waiting for it\n"


BUILD = """
import sys, hashlib
from pathlib import Path
from samdeploy.data import open_dataset
from samdeploy.data.cache import prepare_split
from samdeploy.bundle.spec import Preprocessing
found = prepare_split(open_dataset("folder", Path(sys.argv[1])).train, Preprocessing(12, 9), description="train")
print(found.is_cached, found.fingerprint)
"""


def test_two_processes_at_once_both_get_the_images(train: Samples, noise: Path, image_cache: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", BUILD, str(noise)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    answers = {process.communicate(timeout=60)[0] for process in processes}
    images, labels = load_images(train, SIZE, description="train")
    assert answers == {f"True {fingerprint(images, labels)}\n"}
    assert len(list(image_cache.glob("*.images"))) == 1
    assert not list(image_cache.glob(".*"))


def test_entries_that_nobody_used_for_a_month_go(train: Samples, image_cache: Path) -> None:
    image_cache.mkdir(parents=True)
    ages = {"old.images": 31, "young.images": 29, ".x.partial": 2}
    for name, days in ages.items():
        (image_cache / name).mkdir()
        (image_cache / name / "images.npy").touch()
        for path in (image_cache / name / "images.npy", image_cache / name):
            os.utime(path, (time.time() - 86_400 * days,) * 2)
    (image_cache / ".y.partial").mkdir()
    (image_cache / ".y.partial" / "images.npy").touch()  # still being written, in a folder made long ago
    os.utime(image_cache / ".y.partial", (0, 0))
    (image_cache / "mine").touch()
    os.utime(image_cache / "mine", (0, 0))
    entry = entry_path(train, SIZE)
    prepare_split(train, SIZE, description="train")
    kept = {"young.images", ".y.partial", "mine", entry.name, entry.with_suffix(".lock").name}
    assert {path.name for path in image_cache.iterdir()} == kept


def test_the_stream_of_an_evaluation_takes_what_training_left_and_leaves_nothing(
    train: Samples, image_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = counted(monkeypatch)
    first = np.concatenate(list(stream_prepared(train, SIZE, description="test images", block=5)))
    assert decoded == ["test images"]
    assert not image_cache.exists()
    prepare_split(train, SIZE, description="test")
    blocks = list(stream_prepared(train, SIZE, description="test images", block=5))
    assert decoded == ["test images", "test"]
    assert {len(block) for block in blocks[:-1]} == {5}
    assert np.array_equal(np.concatenate(blocks), first)
    Image.new("RGB", (20, 16), "red").save(train.names[0])
    changed = next(iter(stream_prepared(train, SIZE, description="test images", block=5)))
    assert changed[0].tolist() == [[[255, 0, 0]] * 9] * 12


def test_images_folder_follows_the_environment(image_cache: Path) -> None:
    assert images_folder() == image_cache
