"""What a labelling has written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def table(folder: Path) -> list[dict[str, Any]]:
    """The rows of all parts."""
    return [row for path in sorted(folder.glob("part-*.parquet")) for row in pq.read_table(path).to_pylist()]


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of each file, but for locks and what is half written."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}
