"""The temporary file of prepared images: the same bytes, no name, and no room without a clear word."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from samdeploy.errors import DatasetError
from samdeploy.evaluate.test_set.prepared import PreparedImages

IMAGES = np.random.default_rng(0).integers(0, 256, (11, 3, 5, 3), dtype=np.uint8)


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PreparedImages]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)  # where the standard library remembers an earlier answer
    with PreparedImages(11, 3, 5) as opened:
        for start in range(0, 11, 4):
            opened.append(IMAGES[start : start + 4])
        yield opened


def test_batches(examples: PreparedImages) -> None:
    for size in (1, 4, 11, 64):
        batches = list(examples.batches(size))
        assert [len(batch) for batch in batches] == [min(size, 11 - start) for start in range(0, 11, size)]
        assert np.array_equal(np.concatenate(batches), IMAGES)
    assert len(examples) == 11 and examples.shape == (11, 3, 5, 3)


def test_batches_are_the_callers_own(examples: PreparedImages) -> None:
    kept = next(examples.batches(4))
    kept[:] = 0
    assert np.array_equal(next(examples.batches(4)), IMAGES[:4])


def test_take(examples: PreparedImages) -> None:
    assert np.array_equal(examples.take(np.array([10, 0, 7])), IMAGES[[10, 0, 7]])


def test_the_file_has_no_name(examples: PreparedImages, tmp_path: Path) -> None:
    # So that nothing is left behind, not even by SIGKILL.
    assert list(tmp_path.iterdir()) == []
    assert os.fstat(examples._file.fileno()).st_size == IMAGES.nbytes


def test_close(examples: PreparedImages) -> None:
    examples.close()
    examples.close()
    with pytest.raises(ValueError, match="closed"):
        examples.take(np.array([0]))


def test_a_file_that_was_cut_short_is_noticed(examples: PreparedImages) -> None:
    os.ftruncate(examples._file.fileno(), 5 * 45)
    with pytest.raises(DatasetError, match="ended at byte 225; start again"):
        list(examples.batches(4))


def test_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(DatasetError) as caught:
        PreparedImages(10**9, 1000, 1000)  # 3 PB
    text = str(caught.value)
    assert text.startswith(
        "the 1,000,000,000 prepared test images of 1000x1000 take 3,000,000,000.0 MB of disk while the evaluation "
        f"runs, and {tmp_path} cannot give them ("
    )
    assert text.endswith("make room there, or name a folder that has it: TMPDIR=/path samdeploy eval")
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_set() -> None:
    """Written and read as an evaluation does, in processes of their own: 1,600 images more are 96 MB on disk."""
    code = (
        "import sys; import numpy as np; from samdeploy.evaluate.test_set.prepared import PreparedImages\n"
        "count = int(sys.argv[1]); block = np.full((64, 100, 200, 3), 7, np.uint8)\n"
        "with PreparedImages(count, 100, 200) as images:\n"
        "    for _ in range(count // 64): images.append(block)\n"
        "    assert sum(int(batch[0, 0, 0, 0]) for batch in images.batches(64)) == 7 * (count // 64)\n"
        # Not ru_maxrss: that of the process which started this one counts in it.
        "print(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')])"
    )
    peaks = [
        int(subprocess.run([sys.executable, "-c", code, str(count)], capture_output=True, text=True, check=True).stdout)
        for count in (128, 1728)
    ]
    assert peaks[1] - peaks[0] < 20_000  # KiB; the images would be 94,000 more
