"""Labels that were damaged are refused in one line that names the file and the cure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="pip install 'samdeploy[label]'")

import pyarrow as pa
import pyarrow.parquet as pq

from samdeploy.errors import InputError
from samdeploy.label.parts import part_path, sealed
from samdeploy.label.results import open_labels
from tests.label.conftest import COUNT, ROWS, Label


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    table = pq.read_table(path)
    meta = {b"samdeploy": table.schema.metadata[b"samdeploy"]}
    path.write_bytes(sealed(change(table.replace_schema_metadata(meta))))


def described(text: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.replace_schema_metadata({b"samdeploy": text})


def test_a_damaged_part_is_refused(labelled: Label, tmp_path: Path) -> None:
    labelled(tmp_path)
    part = part_path(tmp_path, 2)
    content = part.read_bytes()
    assert open_labels(tmp_path).rows == COUNT
    flipped = bytearray(content)
    flipped[40] ^= 1
    for damaged in (content[:-1], flipped, b""):
        part.write_bytes(damaged)
        with pytest.raises(InputError, match=r"part-000002.parquet: was cut off or changed; run samdeploy label again"):
            open_labels(tmp_path)
    part.write_bytes(content)
    orders = (list(range(ROWS - 1)), [1, 0, *range(2, ROWS)], [0, *range(ROWS - 1)])
    for order in orders:
        rewrite(part, lambda table, order=order: table.take(order))  # type: ignore[misc]
        with pytest.raises(InputError, match=r"part-000002.parquet: was cut off or changed; run samdeploy label again"):
            open_labels(tmp_path)
        part.write_bytes(content)
    for text in ("{}", "[]", "3", '{"settings": {}, "part": 2, "counts": {"rows": "x"}}'):
        rewrite(part, described(text))
        with pytest.raises(InputError, match=r"part-000002.parquet: .*odd metadata.*; remove it, and label"):
            open_labels(tmp_path)
        part.write_bytes(content)


def test_labels_of_some_rows_are_sound(labelled: Label, tmp_path: Path) -> None:
    for where in ("error", "rejected", "probability < 0.5"):
        labelled(tmp_path / where, where=where)
        labels = open_labels(tmp_path / where)
        assert labels.rows == COUNT and sum(map(len, labels.blocks(["row"]))) == labels.counts["written"]


@pytest.mark.parametrize(
    "change",
    [{"input": None}, {"limit": ...}, {"input": ...}, {"rows": 0}, {"rows": "ten"}, {"limit": "x"}, {"bundle": 1}],
)
def test_odd_settings_are_refused(change: dict[str, Any], labelled: Label, tmp_path: Path) -> None:
    labelled(tmp_path, limit=1)
    path = tmp_path / "_label.json"
    settings = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not ...}))
    with pytest.raises(InputError, match=r"_label.json: not as samdeploy label writes it; remove it, and run"):
        open_labels(tmp_path)
