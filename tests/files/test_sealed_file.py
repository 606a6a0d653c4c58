"""`SealedFile`: a file in memory that nobody can change."""

from __future__ import annotations

import hashlib
import mmap
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from samdeploy.files import SealedFile, _seal


@pytest.mark.parametrize("content", [b"", b"sealed", bytes(range(256)) * 40_000])
def test_a_sealed_file_holds_what_was_there(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with SealedFile.copy_of(tmp_path / "file") as copy, SealedFile(content) as other:
        (tmp_path / "file").write_bytes(b"changed")
        for sealed in (copy, other):
            assert sealed.bytes == len(content)
            assert Path(sealed.path).read_bytes() == content
            assert sealed.sha256() == hashlib.sha256(content).hexdigest()


def test_nobody_can_change_a_sealed_file() -> None:
    with SealedFile(b"sealed") as sealed:
        with Path(sealed.path).open("r+b", buffering=0) as file:
            for change in (lambda: file.write(b"x"), lambda: file.truncate(1), lambda: file.truncate(99)):
                with pytest.raises(PermissionError):
                    change()
        assert Path(sealed.path).read_bytes() == b"sealed"


def sealed_files() -> int:
    """How many this process has open."""
    return sum("sealed" in str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())


def test_a_sealed_file_is_gone_when_it_is_closed(tmp_path: Path) -> None:
    before = sealed_files()
    sealed = SealedFile(b"sealed")
    assert sealed_files() == before + 1
    sealed.close()
    sealed.close()
    SealedFile(b"forgotten")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing", tmp_path / "link"):
        with pytest.raises(OSError, match=r"No such file|symbolic links"):
            SealedFile.copy_of(path)
    assert sealed_files() == before


def test_a_sealed_file_beyond_the_limit_on_file_sizes_names_the_limit() -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from samdeploy.files import SealedFile\nSealedFile(bytes(8192))"
    )
    command = [sys.executable, "-B", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "FileSizeLimit" in done.stderr
    assert "ulimit -f" in done.stderr


def test_a_file_that_the_kernel_holds_for_a_moment_is_sealed_after_it() -> None:
    """A page in use makes the kernel refuse (EBUSY); a writable mapping does so for as long as we like."""
    handle = os.memfd_create("held", os.MFD_ALLOW_SEALING)
    os.write(handle, b"content")
    held = mmap.mmap(handle, 7)
    threading.Timer(0.2, held.close).start()
    _seal(handle)
    with pytest.raises(PermissionError):
        os.write(handle, b"more")
    os.close(handle)
