from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from samdeploy.data import open_dataset
from samdeploy.data.sets import column_images
from tests.data.sets.listed import COPIED, ROWS, check_all, check_copies, check_rows, png, refusal, write_images

pa = pytest.importorskip("pyarrow", reason="pip install 'samdeploy[parquet]'")
pq = pytest.importorskip("pyarrow.parquet", reason="pip install 'samdeploy[parquet]'")

NAMES = ("cat", "dog")
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def table(rows: Sequence[tuple[int, str, str]], image: str = "struct", label: str = "int") -> Any:
    """As `datasets` writes it, unless other types are asked for; `image` is struct, binary or path."""
    images = {
        "struct": lambda: pa.array([{"bytes": png(number), "path": f"{number}.png"} for number, _, _ in rows], IMAGE),
        "binary": lambda: pa.array([png(number) for number, _, _ in rows], pa.large_binary()),
        "path": lambda: pa.array([f"img/{number}.png" for number, _, _ in rows]),
    }[image]()
    labels = pa.array([NAMES.index(name) if label == "int" else name for _, name, _ in rows])
    features = {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if label == "int" else {}
    return pa.table({"image": images, "label": labels}).replace_schema_metadata(metadata)


def of(*splits: str) -> list[tuple[int, str, str]]:
    return [row for row in ROWS if row[2] in splits]


@pytest.mark.parametrize("image", ["struct", "binary", "path"])
@pytest.mark.parametrize("label", ["int", "text"])
def test_hub_layout(tmp_path: Path, image: str, label: str) -> None:
    (tmp_path / "data").mkdir()
    write_images(tmp_path / "data" / "img")
    for part, file in (("train", "train-00000-of-00001"), ("val", "validation-00000-of-00001"), ("test", "test-00000")):
        pq.write_table(table(of(part), image, label), tmp_path / "data" / f"{file}.parquet")
    dataset = open_dataset("table", tmp_path)
    check_rows(dataset)
    if image != "path":
        assert tuple(dataset.test.names) == (
            f"{tmp_path}/data/test-00000.parquet#0",
            f"{tmp_path}/data/test-00000.parquet#1",
        )
    assert dataset.test.read is not None
    assert dataset.test.read(1) == png(11)


def test_split_column(tmp_path: Path) -> None:
    rows = table(ROWS).append_column("split", pa.array([split for _, _, split in ROWS]))
    pq.write_table(rows, tmp_path / "a.parquet")
    check_rows(open_dataset("table", tmp_path / "a.parquet"))


def test_saved_to_disk(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        (tmp_path / part).mkdir()
        rows = table(of(part))
        path = str(tmp_path / part / "data-00000-of-00001.arrow")
        with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, rows.schema) as stream:
            stream.write_table(rows, max_chunksize=3)
    check_rows(open_dataset("table", tmp_path))


def test_images_in_any_order_and_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column_images, "_PIECE_BYTES", 300)  # three images
    monkeypatch.setattr(column_images, "_KEPT_BYTES", 300)
    monkeypatch.setattr(column_images, "images_ahead", lambda: 3)
    for name, start in (("a", 0), ("b", 6)):
        pq.write_table(table(ROWS[start : start + 6]), tmp_path / f"{name}.parquet", row_group_size=5)
    paths = (str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet"))
    images = column_images.ParquetImages(paths, (6, 6), "image")
    for index in (*range(12), 3, 11, 0, 5, 4, *reversed(range(12))):
        assert images(index) == png(index)
        assert len(images._kept) <= 4
    assert pickle.loads(pickle.dumps(images))(7) == png(7)


def test_row_without_an_image_is_named(tmp_path: Path) -> None:
    empty = pa.table({"image": pa.array([None] * 12, pa.binary()), "label": [name for _, name, _ in ROWS]})
    pq.write_table(empty, tmp_path / "a.parquet")
    dataset = open_dataset("table", tmp_path / "a.parquet", val_fraction=0.2)
    with pytest.raises(Exception, match=r"a\.parquet#\d+: the row holds no image$"):
        dataset.train.load(0)


def test_all_faults_at_once(tmp_path: Path) -> None:
    rows = table(ROWS).set_column(1, "label", pa.array([2, -1, None, *[0, 1] * 4, 0]))
    rows = rows.replace_schema_metadata(table(ROWS).schema.metadata)
    pq.write_table(rows, tmp_path / "train.parquet")
    (tmp_path / "test.parquet").write_bytes(b"PAR1")
    (tmp_path / "other.parquet").write_bytes((tmp_path / "train.parquet").read_bytes())
    text = refusal("table", tmp_path)
    assert "other.parquet: its name mentions no split, though others do; rename it" in text
    assert "test.parquet: damaged, or no .parquet file (" in text
    assert "label out of range, 0 to 1 expected (4 rows): other.parquet#0 (2), other.parquet#1 (-1), " in text
    assert "without a label that is a text or an integer (2 rows): other.parquet#2 (None), train.parquet#2" in text


def test_paths_are_checked(tmp_path: Path) -> None:
    write_images(tmp_path / "img")
    (tmp_path / "img" / "3.png").unlink()
    path = tmp_path / "a.parquet"
    pq.write_table(table([*ROWS, ROWS[1]], "path"), path)
    assert refusal("table", path).splitlines()[1:] == [
        f"  - image missing (1 row): a.parquet#3 ({tmp_path}/img/3.png)",
        "  - image listed before (1 row): a.parquet#12 (as a.parquet#1, the same)",
    ]


def test_column_of_another_type(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [1, 2], "label": ["cat", "dog"]}), path)
    assert refusal("table", path).startswith(f"table: {path}: column 'image' holds int64; paths or encoded images")


def test_cut_splits_hold_every_image(tmp_path: Path) -> None:
    pq.write_table(table(ROWS), tmp_path / "a.parquet")
    dataset = open_dataset("table", tmp_path / "a.parquet", val_fraction=0.2)
    check_all(dataset)


@pytest.mark.parametrize("kind", ["struct", "binary", "arrow"])
def test_copies_go_to_one_side_of_a_cut(tmp_path: Path, kind: str) -> None:
    for file in range(2):
        rows = [(number, NAMES[number % 2], "") for number in COPIED[file::2]]
        if kind == "arrow":
            images = table(rows, "struct")
            with pa.ipc.new_stream(str(tmp_path / f"{file}.arrow"), images.schema) as writer:
                writer.write_table(images)
        else:
            pq.write_table(table(rows, kind), tmp_path / f"{file}.parquet", row_group_size=4)
    check_copies(open_dataset("table", tmp_path, val_fraction=0.3))


def test_rows_without_images_are_no_copies(tmp_path: Path) -> None:
    images = pa.array([None if number < 4 else png(number) for number in range(12)], pa.binary())
    pq.write_table(pa.table({"image": images, "label": [number % 2 for number in range(12)]}), tmp_path / "a.parquet")
    assert not any("byte for byte" in note for note in open_dataset("table", tmp_path, val_fraction=0.3).notes)
