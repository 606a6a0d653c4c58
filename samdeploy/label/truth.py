"""The true classes of labelled images: of a table's column, or of the folders that the images lie in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from samdeploy.arrays import Int64Array
from samdeploy.data.sets.column_files import class_names
from samdeploy.data.sets.columns import choose_column
from samdeploy.data.sets.given import what_is_given
from samdeploy.data.sets.layout import name_key
from samdeploy.errors import InputError
from samdeploy.images.walk import shortened
from samdeploy.label.containers import Parquets, batches, parquet_file
from samdeploy.label.inputs import csv_rows
from samdeploy.label.parts import utf8
from samdeploy.label.results import Labels

# Names of the next images, in the order of the input, to their classes, int64 [n].
Truth = Callable[[Sequence[str]], Int64Array]

_CURE = "; give the table that samdeploy label read, with a column of classes: --data TABLE"


def true_classes(labels: Labels, table: Path | None, column: str, classes: Sequence[str]) -> Truth:
    """Where the classes come from; called with all names in turn, it gives one class for each.

    Args:
        labels: of the images.
        table: a .csv, .tsv or .parquet, also several, with one row for each of the input; None: the folders' names.
        column: of the table, with the classes; "": one with a usual name.
        classes: of the network.

    Raises:
        InputError: also when it is called: a row without a class, one that the network does not know, or a table
            of other images.
    """
    if table is None:
        return _Folders(classes)
    given = what_is_given(table)
    files = given.files
    last = labels.rows if labels.settings["limit"] is None else None
    suffixes = {file.suffix.lower() for file in files}
    if not files or given.is_missing():
        raise InputError(f"--data {table}: no table found; the .csv, .tsv or .parquet that was labelled expected")
    if suffixes == {".parquet"}:
        return _Table(classes, _parquet(labels, files, column), f"--data {table}", last)
    if len(files) == 1 and suffixes <= {".csv", ".tsv"}:
        return _Table(classes, _text_table(files[0], column), f"--data {table}", last)
    found = shortened(map(str, files))
    raise InputError(f"--data {table}: {found} found; give one .csv or .tsv, or only .parquet files")


class _Folders:
    """By the one folder on an image's way that is called like a class."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._places = {name_key(name): index for index, name in enumerate(classes)}

    def __call__(self, names: Sequence[str]) -> Int64Array:
        return np.fromiter(map(self._class, names), np.int64, len(names))

    def _class(self, name: str) -> int:
        # A file in a tar is called TAR#NAME; other names may hold # too.
        folders = re.sub(r"\.tar#", ".tar/", name, count=1, flags=re.IGNORECASE).split("/")[:-1]
        found = {self._places[key] for key in map(name_key, folders) if key in self._places}
        if len(found) != 1:
            what = "several folders in its path have" if found else "no folder in its path has"
            raise InputError(
                f"{name}: {what} a class's name; label images in class folders, or a table with a column of classes: "
                "--data TABLE"
            )
        return found.pop()


class _Table:
    """By a table's rows, which are the input's.

    Args:
        rows: (class, {column: value}) of each; the second None where the names need no comparison.
        what: the table, for errors.
        last: how many rows it must have; None: at least those that are asked for.
    """

    def __init__(
        self,
        classes: Sequence[str],
        rows: Iterator[tuple[str, Mapping[str, Any] | None]],
        what: str,
        last: int | None,
    ) -> None:
        self._places = {name: index for index, name in enumerate(classes)}
        self._rows, self._what, self._last, self._row, self._column = rows, what, last, 0, ""

    def __call__(self, names: Sequence[str]) -> Int64Array:
        return np.fromiter(map(self._class, names), np.int64, len(names))

    def _class(self, name: str) -> int:
        found = next(self._rows, None)
        if found is None:
            raise InputError(f"{self._what}: {self._row:,} rows found, none for {name}{_CURE}")
        label, row = found
        if row is not None:
            self._check(name, row)
        if label not in self._places:
            known = shortened(map(repr, self._places))
            text = f"class {label!r} found, which the network does not know ({known})" if label else "no class found"
            where = f"{self._what}: row {self._row + 1} ({name})"
            raise InputError(f"{where}: {text}; name the column: --label-column NAME")
        self._row += 1
        if self._row == self._last and next(self._rows, None) is not None:
            raise InputError(f"{self._what}: more rows found than the {self._last:,} that have labels{_CURE}")
        return self._places[label]

    def _check(self, name: str, row: Mapping[str, Any]) -> None:
        if not self._row:
            self._column = next((key for key, value in row.items() if _same(value, name)), "")
        if not self._column or not _same(row.get(self._column), name):
            raise InputError(f"{self._what}: row {self._row + 1}: {name} expected, as in the labels{_CURE}")


def _same(value: object, name: str) -> bool:
    return isinstance(value, str | None) and utf8(value or "") == name


def _label_column(names: Sequence[str], column: str, where: Path) -> str:
    found = choose_column(names, "label_column", column)
    if found is None:
        wanted = repr(column) if column else "a column of classes"
        raise InputError(
            f"{where}: columns {shortened(map(repr, names))} found, {wanted} expected: --label-column NAME"
        )
    return found


def _text_table(path: Path, column: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    names, rows = csv_rows(path)
    label = _label_column(names, column, path)
    # As label lists them: a row without a path is a row.
    return (((row[label] or "").strip(), row) for row in rows)


def _parquet(labels: Labels, files: Sequence[Path], column: str) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    import pyarrow as pa

    schema = parquet_file(files[0]).schema_arrow
    label = _label_column(schema.names, column, files[0])
    classes = class_names(schema, label)
    texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    if labels.settings["input"]["kind"] == Parquets.kind:
        given = Parquets(list(files), "").identity
        if given != labels.settings["input"]:
            raise InputError(f"{files[0]}: not the Parquet files that {labels.folder} has labels of{_CURE}")
        texts = []
    return _parquet_rows(files, label, classes, texts)


def _parquet_rows(
    files: Sequence[Path], label: str, classes: Sequence[str], texts: Sequence[str]
) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    for file in files:
        columns = [batches(file, name) for name in (label, *texts)]
        for values in zip(*columns, strict=True):
            for value, *others in zip(*(array.to_pylist() for array in values), strict=True):
                yield _text(value, classes), dict(zip(texts, others, strict=True)) if texts else None


def _text(value: object, classes: Sequence[str]) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        if not classes:
            return str(value)
        return classes[value] if 0 <= value < len(classes) else ""
    return value.strip() if isinstance(value, str) else ""
