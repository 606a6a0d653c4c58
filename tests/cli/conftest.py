"""A finished run, and images of which some are broken."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from samdeploy.bundle import Bundle


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, digits_bundle: Bundle) -> Path:
    """A folder with `runs/` that holds a finished run and its bundle."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(digits_bundle.root.parent, folder / "runs" / "digits")
    return folder


@pytest.fixture
def mixed(tmp_path: Path, digit_files: Sequence[Path]) -> Path:
    """A folder with two good images, a truncated one, a text that claims to be one, and a text that does not."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    shutil.copy(digit_files[0], folder / "a-good.png")
    (folder / "b-cut.png").write_bytes(digit_files[1].read_bytes()[:60])
    (folder / "c-text.png").write_text("no image")
    (folder / "notes.txt").write_text("not looked at")
    (folder / "sub").mkdir()
    shutil.copy(digit_files[2], folder / "sub" / "d-good.png")
    return folder
