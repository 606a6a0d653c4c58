"""The user's cache: what is damaged, foreign or open to others is never used, and never an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from samdeploy.backends.user_cache import cache_folder, cache_path, read_cache, write_cache

KEY = {"package": "tensorrt 11.4.0.106", "gpu": "NVIDIA RTX A4000 SM86", "driver": "13.0"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAMDEPLOY_CACHE", str(tmp_path / "a" / "cache"))
    return tmp_path / "a" / "cache"


def test_where_it_lies(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == folder
    monkeypatch.delenv("SAMDEPLOY_CACHE")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/samdeploy")


def test_an_entry_comes_back_for_its_key_alone(folder: Path) -> None:
    assert read_cache("timing", KEY) == (b"", "")
    assert write_cache("timing", KEY, b"one") == ""
    assert write_cache("timing", KEY, b"two") == ""
    assert read_cache("timing", dict(reversed(KEY.items()))) == (b"two", "")
    assert [path.name for path in folder.iterdir()] == [cache_path("timing", KEY).name]
    for key in ({**KEY, "driver": "13.1"}, {**KEY, "gpu": ""}, {**KEY, "plan": "00"}):
        assert read_cache("timing", key) == (b"", "")
    assert read_cache("runtime", KEY) == (b"", "")
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda content: content[:-1], "is damaged"),
        (lambda content: content[:-3] + b"XYZ", "is damaged"),
        (lambda content: content + b"more", "is damaged"),
        (lambda content: content.replace(b"A4000", b"A5000"), "was made for another version, GPU or driver"),
        (lambda content: b"#!/bin/sh", "is not such a file"),
        (lambda content: b"", "is not such a file"),
    ],
)
def test_a_damaged_or_foreign_entry_is_ignored_with_a_note(change, text: str) -> None:  # type: ignore[no-untyped-def]
    write_cache("timing", KEY, b"timings")
    path = cache_path("timing", KEY)
    path.write_bytes(change(path.read_bytes()))
    data, note = read_cache("timing", KEY)
    assert data == b""
    assert note == f"timing cache ignored: {path} {text}"


def test_an_entry_that_others_may_write_is_ignored(tmp_path: Path) -> None:
    write_cache("runtime", KEY, b"kernels")
    path = cache_path("runtime", KEY)
    path.chmod(0o666)
    assert read_cache("runtime", KEY) == (b"", f"runtime cache ignored: others may write to {path}")
    path.chmod(0o600)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert read_cache("runtime", KEY) == (b"", f"runtime cache ignored: others may write to {path}")


def test_a_folder_that_cannot_be_written_is_a_note(folder: Path) -> None:
    folder.parent.write_text("a file where the folder should be")
    assert (
        write_cache("timing", KEY, b"timings") == f"timing cache not kept: {folder} cannot be written (Not a directory)"
    )
