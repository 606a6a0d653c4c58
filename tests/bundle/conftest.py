"""A sound bundle, free to be damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundle.written import write_bundle


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")
