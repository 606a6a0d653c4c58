"""`write_atomic`: whole or not at all, also where the disk is full or the process is stopped."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from samdeploy.files import write_atomic


def test_write_atomic_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    for content in (b"first", b"", b"\0second\xff" * 100_000):
        write_atomic(path, content)
        assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


def test_write_atomic_gives_a_file_that_others_may_read(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_atomic(path, b"x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_disk_that_takes_no_more_is_named_with_the_file(tmp_path: Path) -> None:
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom samdeploy.files import write_atomic\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    write_atomic(Path(sys.argv[1]), b'x' * 2000)\n"
        "except OSError as error:\n    print(error.filename)"
    )
    path = tmp_path / "model.onnx"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout == f"{path}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    write_atomic(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OSError, match="No space left on device"):
        write_atomic(path, b"new")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("run.json", b"old")]


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    write_atomic(path, b"old")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"new")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("run.json", b"old")]


def test_the_content_is_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut leaves the new name with no content."""
    path = tmp_path / "run.json"
    steps: list[tuple[str, int]] = []
    fsync, replace = os.fsync, Path.replace

    def seen_fsync(handle: int) -> None:
        status = os.fstat(handle)
        steps.append(("fsync of the folder", 0) if stat.S_ISDIR(status.st_mode) else ("fsync", status.st_size))
        fsync(handle)

    def seen_replace(self: Path, target: Path) -> Path:
        steps.append(("replace", self.stat().st_size))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(Path, "replace", seen_replace)
    write_atomic(path, b"12345")
    assert steps == [("fsync", 5), ("replace", 5), ("fsync of the folder", 0)]


def test_a_folder_in_the_way_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "run.json").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomic(tmp_path / "run.json", b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


def test_a_link_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"precious")
    link.symlink_to(target)
    write_atomic(link, b"new")
    assert (target.read_bytes(), link.read_bytes(), link.is_symlink()) == (b"precious", b"new", False)
