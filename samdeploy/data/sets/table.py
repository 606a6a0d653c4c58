"""Your own images: a table of paths and labels, or of the images themselves.

::

    labels.csv, .tsv        path,label[,split]           paths are relative to the table's folder, or absolute
    metadata.jsonl          {"file_name": ..., "label": ...}    a line per image, as Hugging Face's imagefolder has it
    *.parquet               path or image, label[, split]       see `samdeploy.data.sets.column_files`
    folder                  train.csv, test.csv, or data/train-00000-of-00001.parquet and so on

Columns go by their usual names, or by the options `path_column`, `label_column` and `split_column`.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from samdeploy.data.dataset import Dataset, OptionValue
from samdeploy.data.sets.columns import Columns, choose_columns, delimiter_of
from samdeploy.data.sets.given import COLUMN_FILES, TEXT_TABLES, Given, what_is_given
from samdeploy.data.sets.image_list import ImageList, check_files, open_list, read_split, split_of_file
from samdeploy.data.stored import file_samples
from samdeploy.terminal import printable

Row = Mapping[str, object]


def open_table(
    root: Path, *, options: Mapping[str, OptionValue], val_fraction: float, seed: int, download: bool
) -> Dataset:
    """The images that `root` lists; classes are the labels of train in natural order, or as Parquet names them.

    Raises:
        DatasetMissing: there is no such file.
        DatasetError: everything that is wrong with the table.
    """
    return open_list(read_table(root, options), val_fraction=val_fraction, seed=seed)


def read_table(root: Path, options: Mapping[str, OptionValue]) -> ImageList:
    """All rows; faults are in the list, and no image is read."""
    given = what_is_given(root)
    if given.kind != "table":
        given = Given(root, "table", (root,))
    found = ImageList(given)
    columnar = [file for file in given.files if file.suffix.lower() in COLUMN_FILES]
    others = [file for file in given.files if file.suffix.lower() not in COLUMN_FILES + TEXT_TABLES]
    if others or (columnar and len(columnar) != len(given.files)):
        kinds = ", ".join(sorted({file.suffix or file.name for file in given.files}))
        found.faults.add(f"{printable(root)}: {kinds} found, one of .csv, .tsv, .jsonl, .parquet or .arrow expected")
    elif columnar:
        from samdeploy.data.sets.column_files import read_column_files

        read_column_files(found, options)
    else:
        for file in given.files:
            _read_text(found, file, options)
        check_files(found)
        found.samples = file_samples
    return found


def _read_text(found: ImageList, file: Path, options: Mapping[str, OptionValue]) -> None:
    """Append the rows of a CSV, TSV or JSON-lines file."""
    try:
        # What is not UTF-8 is kept as it is: in a path it may be the file's name, in a label it is refused.
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            rows = _json_rows(found, file, text) if file.suffix.lower() == ".jsonl" else _csv_rows(found, file, text)
            of_file, folder, columns = split_of_file(found, file), str(file.parent), None
            for where, row in rows:
                columns = columns or choose_columns(list(row), options, str(file), found.faults)
                if columns is None:
                    return
                image = _image(found, where, row, columns)
                if image is not None:
                    path, label = image
                    split = of_file if columns.split is None else read_split(_text(row, columns.split), found, where)
                    found.add(os.path.join(folder, path), label, split, where)  # noqa: PTH118 - a Path costs more
    except FileNotFoundError:
        found.faults.add(f"{printable(file)}: no such file")
    except OSError as error:
        found.faults.add(f"{printable(file)}: cannot be read ({error.strerror})")


def _image(found: ImageList, where: str, row: Row, columns: Columns) -> tuple[str, str] | None:
    """The path and the label of a row; None where one is missing, which is a fault."""
    path, label = row.get(columns.image), row.get(columns.label)
    if not isinstance(path, str) or not path.strip():
        found.faults.add_row("without a path", where)
    elif isinstance(label, bool) or not isinstance(label, str | int) or not str(label).strip():
        found.faults.add_row("without a label", where)
    else:
        return path, str(label).strip()
    return None


def _text(row: Row, column: str) -> str:
    return str(row.get(column) or "")


def _csv_rows(found: ImageList, file: Path, text: Iterator[str]) -> Iterator[tuple[str, Row]]:
    """("file:line", row) for every row that has as many cells as there are columns; the others are faults."""
    short, header = found.given.short(file), next(text, "")
    delimiter = delimiter_of(file, header)
    reader = csv.reader(_with_first(header, text), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        for cells in reader:
            if len(cells) == len(names):
                yield f"{short}:{reader.line_num}", dict(zip(names, cells, strict=True))
            elif cells:
                what = f"cells found that are not {len(names)}, as in the first line"
                found.faults.add_row(what, f"{short}:{reader.line_num} ({len(cells)})")
    except csv.Error as error:
        found.faults.add_row(f"broken, and what follows is not read: {error}", f"{short}:{reader.line_num}")


def _with_first(first: str, others: Iterator[str]) -> Iterator[str]:
    yield first
    yield from others


def _json_rows(found: ImageList, file: Path, text: Iterator[str]) -> Iterator[tuple[str, Row]]:
    short = found.given.short(file)
    for line, content in enumerate(text, 1):
        try:
            row = json.loads(content) if content.strip() else None
        except (ValueError, RecursionError) as error:
            found.faults.add_row("no JSON", f"{short}:{line} ({error})")
            continue
        if isinstance(row, dict):
            yield f"{short}:{line}", row
        elif row is not None:
            found.faults.add_row("no JSON object", f"{short}:{line}")
