"""The plots of docs/figures.md: drawn from the newest results, shown on the page, and small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="pip install 'samdeploy[plots]'")

from benchmarks.figures import IMAGES, newest, write

VERSION = re.compile(rb"Matplotlib v([\d.]+)")


def test_plots_show_the_newest_results(tmp_path: Path) -> None:
    page = (IMAGES.parent / "figures.md").read_text()
    for drawn in write(tmp_path):
        kept = IMAGES / drawn.name
        assert f"](images/{drawn.name})" in page
        if VERSION.findall(kept.read_bytes()) == VERSION.findall(drawn.read_bytes()):
            assert kept.read_bytes() == drawn.read_bytes(), "run: python benchmarks/figures.py"


def test_images_are_small() -> None:
    assert {path.name for path in IMAGES.iterdir() if path.stat().st_size >= 200_000} == set()


def test_a_missing_result_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="no nothing of epyc-2core"):
        newest("nothing", "epyc-2core")
