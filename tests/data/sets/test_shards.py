from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from samdeploy.bundle.spec import Preprocessing
from samdeploy.data import open_dataset
from samdeploy.data.cache import images_folder, prepare_split
from samdeploy.errors import ImageError
from tests.data.sets.listed import COPIED, ROWS, check_all, check_copies, check_rows, png, refusal


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def members(*splits: str, kind: str = "cls") -> dict[str, bytes]:
    found = {}
    for number, label, split in ROWS:
        if split in splits:
            found[f"./a.b/{number:03}.png"] = png(number)
            found[f"./a.b/{number:03}.{kind}"] = json.dumps({"label": label}).encode() if kind == "json" else (
                f"{label}\n".encode()
            )  # fmt: skip
    return found


@pytest.mark.parametrize("kind", ["cls", "json", "txt"])
def test_shards_of_splits(tmp_path: Path, kind: str) -> None:
    for part in ("train", "val", "test"):
        write_tar(tmp_path / f"{part}-000.tar", members(part, kind=kind))
    dataset = open_dataset("shards", tmp_path)
    check_rows(dataset)
    assert dataset.test.names[0] == f"{tmp_path}/test-000.tar:./a.b/010.png"
    assert dataset.test.read is not None
    assert dataset.test.read(1) == png(11)


def test_pattern_and_key(tmp_path: Path) -> None:
    for shard, start in enumerate((0, 6)):
        rows = ROWS[start : start + 6]
        write_tar(
            tmp_path / f"a-{shard}.tar",
            {f"{n}.png": png(n) for n, _, _ in rows}
            | {f"{n}.json": json.dumps({"label": "x", "kind": c}).encode() for n, c, _ in rows},
        )
    dataset = open_dataset("shards", tmp_path / "a-{0..1}.tar", options={"label_key": "kind"}, val_fraction=0.2)
    assert dataset.classes == ("cat", "dog")
    check_all(dataset)
    assert dataset.cut == ("val", "test")


def test_all_faults_at_once(tmp_path: Path) -> None:
    broken = members("train") | {"1.png": png(1), "2.cls": b"cat", "3.png": png(3), "3.jpg": png(3), "3.cls": b"cat"}
    write_tar(tmp_path / "train-0.tar", broken)
    with tarfile.open(tmp_path / "train-0.tar", "a") as tar:
        link = tarfile.TarInfo("4.png")
        link.type, link.linkname = tarfile.SYMTYPE, "1.png"
        tar.addfile(link)
    content = (tmp_path / "train-0.tar").read_bytes()
    (tmp_path / "train-1.tar").write_bytes(content[:1500])
    (tmp_path / "train-2.tar").write_bytes(content[:1024] + b"x" * 512 + content[1536:])
    (tmp_path / "train-3.tar.gz").write_bytes(gzip.compress(content))
    lines = refusal("shards", tmp_path).splitlines()
    assert lines[0] == f"shards: 7 faults in {tmp_path}:"
    assert lines[1].startswith(f"  - {tmp_path}/train-1.tar: no sound tar file (")
    assert lines[2] == f"  - {tmp_path}/train-2.tar: no sound tar file (damaged at byte 1,024); copy it again"
    assert lines[3] == (
        f"  - {tmp_path}/train-3.tar.gz: compressed, so that images cannot be read one by one; unpack it first: "
        f"gunzip {tmp_path}/train-3.tar.gz"
    )
    assert lines[4:] == [
        "  - a link or a sparse file (1 row): train-0.tar:4.png",
        "  - without a label (cls, json, txt) (1 row): train-0.tar:1",
        "  - a label without an image (1 row): train-0.tar:2",
        "  - several images under one name (1 row): train-0.tar:3",
    ]


def test_missing_shard(tmp_path: Path) -> None:
    write_tar(tmp_path / "a-0.tar", members("train", "val", "test"))
    assert refusal("shards", tmp_path / "a-{0..1}.tar") == f"shards: {tmp_path}/a-1.tar: no such file"


def test_damaged_image_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", members("train", "val") | {"./a.b/004.png": b"GIF"})
    dataset = open_dataset("shards", tmp_path / "a.tar", val_fraction=0.3)
    samples = dataset.train + dataset.val + dataset.test
    index = samples.names.index(f"{tmp_path}/a.tar:./a.b/004.png")
    with pytest.raises(ImageError, match=r"^\S+/a\.tar:\./a\.b/004\.png: "):
        samples.load(index)


def test_prepared_again_when_a_shard_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("train", "val", "test"):
        write_tar(tmp_path / f"{part}.tar", members(part))
    size = Preprocessing(4, 4, "squeeze", None, (0.5,) * 3, (0.5,) * 3)
    first = prepare_split(open_dataset("shards", tmp_path).train, size, description="train")
    assert [int(image[0, 0, 0]) // 10 for image in first.images] == list(range(8))
    again = prepare_split(open_dataset("shards", tmp_path).train, size, description="train")
    assert again.is_cached
    assert capsys.readouterr().err == ""
    os.utime(tmp_path / "train.tar", (1, 1))
    prepare_split(open_dataset("shards", tmp_path).train, size, description="train")
    assert "8 of 8 images changed since they were cached" in capsys.readouterr().err


def test_tars_are_read_once_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "a.tar", members("train", "val", "test"))
    names = list(open_dataset("shards", path, val_fraction=0.2).train.names)
    with monkeypatch.context() as patched:
        patched.setattr(tarfile, "open", None)
        again = open_dataset("shards", path, val_fraction=0.2)
    check_all(again)
    assert list(again.train.names) == names
    assert "no column" not in refusal("shards", path, label_key="other")  # another question, another pass
    write_tar(path, members("train", "val", "test") | {"more.png": png(12), "more.cls": b"cat"})
    changed = open_dataset("shards", path, val_fraction=0.2)
    assert f"{path}:more.png" in [*changed.train.names, *changed.val.names, *changed.test.names]


def test_faults_are_remembered(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", members("train") | {"lost.png": png(1)})
    first = refusal("shards", path)
    assert first == refusal("shards", path)
    assert "without a label (cls, json, txt) (1 row): a.tar:lost" in first


@pytest.mark.parametrize("damage", [b"", b"x" * 40, None])
def test_damaged_cache_is_read_anew(tmp_path: Path, damage: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMDEPLOY_CACHE", str(tmp_path / "cache"))
    path = write_tar(tmp_path / "a.tar", members("train", "val", "test"))
    check_all(open_dataset("shards", path, val_fraction=0.2))
    entries = {entry: entry.read_bytes() for entry in images_folder().glob("*.notes")}
    assert len(entries) == 2  # where the images lie, and their digests
    for entry, content in entries.items():
        entry.write_bytes(content[:-30] + bytes([content[-30] ^ 1]) + content[-29:] if damage is None else damage)
    check_all(open_dataset("shards", path, val_fraction=0.2))
    assert entries == {entry: entry.read_bytes() for entry in entries}


def test_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SAMDEPLOY_CACHE", str(tmp_path / "file"))
    path = write_tar(tmp_path / "a.tar", members("train", "val", "test"))
    check_all(open_dataset("shards", path, val_fraction=0.2))


def test_copies_go_to_one_side_of_a_cut(tmp_path: Path) -> None:
    for shard in range(2):
        found: dict[str, bytes] = {}
        for place, number in enumerate(COPIED[shard::2]):
            found |= {f"{place}.png": png(number), f"{place}.cls": str(number % 2).encode()}
        write_tar(tmp_path / f"a-{shard}.tar", found)
    check_copies(open_dataset("shards", tmp_path, val_fraction=0.3))
