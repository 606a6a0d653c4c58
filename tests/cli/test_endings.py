"""Errors of the system of which no part of the product knew more: one line, no traceback."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from samdeploy.cli.endings import _file_error, _memory_error


def test_what_the_operating_system_refuses() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    text = _memory_error(caught.value)
    assert text is not None
    assert text.startswith("the memory is full (")
    assert text.endswith("; end other programs, or take smaller batches or images")
    assert "\n" not in text


def test_pythons_own_and_others() -> None:
    assert _memory_error(MemoryError()) == "the memory is full; end other programs, or take smaller batches or images"
    assert _memory_error(RuntimeError("a mistake of ours")) is None


def test_a_closed_folder_is_named_and_not_the_file_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "closed"
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) not in (closed, closed / "deeper"))
    for file in (closed / "_label.json", closed / "deeper" / "manifest.json", closed):
        error = PermissionError(errno.EACCES, "Permission denied", str(file))
        assert _file_error(error) == f"{closed}: Permission denied; change its permissions, or name another place"
