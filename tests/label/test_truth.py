"""The true class of every labelled image, from folders and from tables; never one that is not its own."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="pip install 'samdeploy[label]'")

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from samdeploy.errors import InputError
from samdeploy.label.fetch import Fetch
from samdeploy.label.inputs import open_input
from samdeploy.label.results import Labels
from samdeploy.label.truth import true_classes

CLASSES = ("cat", "dog", "Owl")
NAMES = ("a.png", "b.png", "c.png", "d.png")
TRUE = ("dog", "cat", "Owl", "dog")
Open = Callable[[Path], Labels]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """What a labelling of an input records of it."""

    def run(given: Path) -> Labels:
        folder = tmp_path / "labels"
        folder.mkdir(exist_ok=True)
        (folder / "_input.jsonl").unlink(missing_ok=True)
        identity = open_input(str(given), folder, "", Fetch(1.0, 1 << 20), known=False).identity
        return Labels(folder, {"input": json.loads(json.dumps(identity)), "limit": None}, len(NAMES), 1, {})

    return run


def table(path: Path, rows: Sequence[Sequence[object]], names: Sequence[str] = ("id", "path", "label")) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table(dict(zip(names, zip(*rows, strict=True), strict=True))), path)
    else:
        with path.open("w", newline="") as file:
            csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([names, *rows])
    return path


ROWS = [(number, name, label) for number, (name, label) in enumerate(zip(NAMES, TRUE, strict=True))]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.parquet"])
def test_a_column_of_the_table_that_was_labelled(name: str, opened: Open, tmp_path: Path) -> None:
    path = table(tmp_path / name, ROWS)
    truth = true_classes(opened(path), path, "", CLASSES)
    assert [*truth(NAMES[:3]), *truth(NAMES[3:])] == [1, 0, 2, 1]


def test_of_a_labelling_with_a_limit_the_table_goes_on(opened: Open, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", [*ROWS, (4, "e.png", "cat")])
    found = opened(path)
    labels = replace(found, settings={**found.settings, "limit": 4})
    assert true_classes(labels, path, "", CLASSES)(NAMES).tolist() == [1, 0, 2, 1]


def test_a_table_of_excel(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id;path;label\n" + "".join(f"{number};{name};{label}\n" for number, name, label in ROWS))
    assert true_classes(opened(path), path, "", CLASSES)(NAMES).tolist() == [1, 0, 2, 1]


def test_encoded_images_and_classes_as_datasets_writes_them(opened: Open, tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, "PNG")
    path = tmp_path / "images.parquet"
    features = {"info": {"features": {"label": {"names": ["dog", "Owl", "cat"], "_type": "ClassLabel"}}}}
    columns: dict[str, Any] = {"image": [{"bytes": content.getvalue(), "path": None}] * 4, "label": [0, 2, 1, 0]}
    found = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(found, path, row_group_size=3)
    names = [f"images.parquet#{row}" for row in range(4)]
    assert true_classes(opened(path), path, "", CLASSES)(names).tolist() == [1, 0, 2, 1]
    labels = opened(path)
    pq.write_table(found.slice(0, 3), path)
    with pytest.raises(InputError, match="not the Parquet files that"):
        true_classes(labels, path, "", CLASSES)


def test_the_folder_that_is_called_like_a_class(opened: Open, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", ROWS)
    truth = true_classes(opened(path), None, "", CLASSES)
    names = ["cat/a.png", "/data/test/dog/x/b.png", "s3://bucket/owl/c.png", "shard-1.tar#DOG/d.png"]
    assert truth(names).tolist() == [0, 1, 2, 1]
    assert truth(["dog#1/cat/a#b.png", "a.TAR#dog/x.tar#cat/y.png"]).tolist() == [0, 1]
    for name, text in (
        ("cat.png", "no folder"),
        ("cat#1.png", "no folder"),
        ("x/a.png", "no folder"),
        ("cat/dog/a.png", "several folders"),
    ):
        with pytest.raises(InputError, match=f"{name}: {text} in its path .*--data TABLE"):
            truth([name])


def test_a_table_of_other_images_or_classes_is_refused(opened: Open, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", ROWS)
    labels = opened(path)
    swapped = table(tmp_path / "swapped.csv", [ROWS[0], ROWS[2], ROWS[1], ROWS[3]])
    others = table(tmp_path / "others.csv", [(0, "z.png", "cat")])
    wolf = table(tmp_path / "wolf.csv", [(*ROWS[0][:2], "wolf"), *ROWS[1:]])
    empty = table(tmp_path / "empty.csv", [*ROWS[:3], (3, "d.png", "")])
    for given, text in (
        (swapped, "row 2: b.png expected"),
        (others, "row 1: a.png expected"),
        (table(tmp_path / "short.csv", ROWS[:2]), "2 rows found, none for c.png"),
        (table(tmp_path / "long.csv", [*ROWS, (4, "e.png", "cat")]), "more rows found than the 4 that have labels"),
        (wolf, "class 'wolf' found, which the network does not know"),
        (empty, r"row 4 \(d.png\): no class found"),
    ):
        with pytest.raises(InputError, match=text):
            true_classes(labels, given, "", CLASSES)(NAMES)
    with pytest.raises(InputError, match="'species' expected: --label-column NAME"):
        true_classes(labels, path, "species", CLASSES)
    with pytest.raises(InputError, match="no table found"):
        true_classes(labels, tmp_path / "none.csv", "", CLASSES)
    with pytest.raises(InputError, match=r"give one .csv or .tsv, or only .parquet"):
        true_classes(labels, table(tmp_path / "t.jsonl", ROWS), "", CLASSES)
