from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from samdeploy.data import open_dataset
from samdeploy.data.sets.image_list import open_test_list
from samdeploy.data.sets.table import read_table
from samdeploy.errors import DatasetError
from tests.data.sets.listed import ROWS, check_all, check_rows, png, refusal, write_images


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Write a file beside the images 0.png to 11.png in img/."""
    write_images(tmp_path / "img")

    def made(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return made


def csv_text(header: str = "path,label,split", delimiter: str = ",", end: str = "\n") -> str:
    lines = [header, *(f"img/{number}.png,{label},{split}" for number, label, split in ROWS)]
    return "".join(line.replace(",", delimiter) + end for line in lines)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", csv_text()),
        ("a.csv", csv_text("File_Name,Class,Subset")),
        ("a.csv", csv_text(end="\r\n").encode("utf-8-sig")),
        ("a.csv", csv_text(delimiter=";")),
        ("a.csv", csv_text().replace("cat", '"cat"').replace(",val", ", valid")),
        ("a.tsv", csv_text(delimiter="\t")),
        ("a.csv", csv_text("extra,path,label,split").replace("img/", "1,img/")),
        (
            "a.jsonl",
            "".join(json.dumps({"file_name": f"img/{n}.png", "label": c, "split": s}) + "\n" for n, c, s in ROWS),
        ),
    ],
)
def test_forms_of_a_table(write: Callable[..., Path], name: str, content: str | bytes) -> None:
    check_rows(open_dataset("table", write(name, content)))


def test_columns_are_named_by_options(write: Callable[..., Path]) -> None:
    path = write("a.csv", csv_text("where,what,when"))
    options = {"path_column": "where", "label_column": "what", "split_column": "when"}
    check_rows(open_dataset("table", path, options=options))
    assert refusal("table", path) == (
        "table: 2 faults in " + str(path) + ":"
        f"\n  - {path}: no column of images found; its columns are 'where', 'what', 'when'. Name it: "
        "--set data.options.path_column=NAME"
        f"\n  - {path}: no column of labels found; its columns are 'where', 'what', 'when'. Name it: "
        "--set data.options.label_column=NAME"
    )
    assert "no column 'Where' (path_column)" in refusal("table", path, **options | {"path_column": "Where"})


def test_a_column_may_be_a_number(write: Callable[..., Path]) -> None:
    options = {"path_column": 0, "label_column": 1, "split_column": 2}
    check_rows(open_dataset("table", write("a.csv", csv_text("0,1,2")), options=options))


def test_splits_are_cut_where_the_table_has_none(write: Callable[..., Path]) -> None:
    path = write("a.csv", "path,label\n" + "".join(f"img/{n}.png,{c}\n" for n, c, _ in ROWS))
    dataset = open_dataset("table", path, val_fraction=0.2)
    check_all(dataset)
    assert dataset.cut == ("val", "test")
    assert f"no test images in {path}: 2 training images are held out as test" in dataset.notes


def test_a_file_for_each_split(write: Callable[..., Path], tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        rows = "".join(f"img/{n}.png,{c}\n" for n, c, split in ROWS if split == part)
        write(f"{part}.csv", "path,label\n" + rows)
    write("classes.csv", "name\ncat\ndog\n")
    check_rows(open_dataset("table", tmp_path))


def test_metadata_in_the_folders_of_splits(tmp_path: Path) -> None:
    for part in ("train", "validation", "test"):
        (tmp_path / part).mkdir()
        lines = []
        for number, label, split in ROWS:
            if part.startswith(split):
                (tmp_path / part / f"{number}.png").write_bytes(png(number))
                lines.append(json.dumps({"file_name": f"{number}.png", "label": label}))
        (tmp_path / part / "metadata.jsonl").write_text("\n".join(lines))
    check_rows(open_dataset("table", tmp_path))


def test_all_faults_at_once_with_their_lines(write: Callable[..., Path]) -> None:
    extra = "img/99.png,cat,train\nimg/1.png,dog,train\nimg/2.png,,train\n,cat,train\nimg/3.png\nimg/10.png,cow,later\n"
    path = write("a.csv", csv_text() + extra)
    assert refusal("table", path).splitlines() == [
        f"table: 6 faults in {path}:",
        "  - without a label (1 row): a.csv:16",
        "  - without a path (1 row): a.csv:17",
        "  - cells found that are not 3, as in the first line (1 row): a.csv:18 (1)",
        "  - no split: expected train, val or test (1 row): a.csv:19 ('later')",
        f"  - image missing (1 row): a.csv:14 ({path.parent}/img/99.png)",
        "  - image listed before (2 rows): a.csv:15 (as a.csv:3, another label), a.csv:19 (as a.csv:12, another label)",
    ]


def test_ten_rows_of_a_kind_are_named(write: Callable[..., Path]) -> None:
    path = write("a.csv", csv_text() + "".join(f"img/x{number}.png,cat,train\n" for number in range(12)))
    assert refusal("table", path).endswith(f"a.csv:23 ({path.parent}/img/x9.png) and 2 more")


def test_class_of_test_that_is_not_in_train(write: Callable[..., Path]) -> None:
    path = write("a.csv", csv_text().replace("img/10.png,cat", "img/10.png,cow"))
    assert refusal("table", path) == "table: class not in train (1 row): a.csv:12 ('cow')"


def test_classes_that_differ_in_case(write: Callable[..., Path]) -> None:
    path = write("a.csv", csv_text().replace("img/1.png,cat", "img/1.png,Cat"))
    assert refusal("table", path) == (
        "table: classes differ in case, Unicode form or spaces alone: 'Cat' and 'cat'. Write them alike"
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "no images are listed there"),
        ("path,label\nimg/0.png,cat\nimg/1.png,cat\n", "1 class found ('cat'); at least 2 expected"),
        (
            'path,label\n"img/0.png,cat\n',
            "broken, and what follows is not read: unexpected end of data (1 row): a.csv:2",
        ),
        ("path,label\nimg/0.png,caf\xe9\nimg/1.png,dog\n".encode("latin-1"), "or are not UTF-8: caf\\xe9"),
        (csv_text().replace("train", "val"), "only val and test images are listed; the training images are missing"),
    ],
)
def test_what_is_refused(write: Callable[..., Path], content: str | bytes, text: str) -> None:
    assert refusal("table", write("a.csv", content)).endswith(text)


def test_a_class_whose_rows_have_faults_is_not_missing(write: Callable[..., Path]) -> None:
    text = refusal("table", write("a.csv", "path,label\nimg/0.png,cat\nimg/none.png,dog\n"))
    assert text.startswith("table: image missing (1 row): a.csv:3 (")


def test_lines_that_are_no_json(write: Callable[..., Path]) -> None:
    path = write("a.jsonl", '{"file_name": "img/0.png", "label": "cat"}\n{"file_name"\n[1]\n')
    assert "no JSON (1 row): a.jsonl:2 (" in refusal("table", path)
    assert "no JSON object (1 row): a.jsonl:3" in refusal("table", path)


def test_missing_file(tmp_path: Path) -> None:
    assert refusal("table", tmp_path / "a.csv") == f"table: {tmp_path / 'a.csv'}: no such file"


def test_test_images_alone(write: Callable[..., Path]) -> None:
    path = write("a.csv", "path,label\nimg/10.png,dog\n")
    samples, notes = open_test_list(read_table(path, {}), ("cat", "dog"))
    assert samples.labels.tolist() == [1]
    assert notes == (
        f"{path} has no splits, so all of it is evaluated: 1 image",
        "test: no images of 1 of 2 classes: cat",
    )
    with pytest.raises(DatasetError, match=r"class not in the network, which knows 'cat' \(1 row\): a.csv:2 \('dog'\)"):
        open_test_list(read_table(path, {}), ("cat",))
