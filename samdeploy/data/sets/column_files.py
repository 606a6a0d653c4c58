"""Tables in columns: Parquet, and the Arrow files that Hugging Face's `datasets` writes with `save_to_disk`.

The column of images holds paths, encoded images, or, as `datasets` writes them, structs of both: {bytes, path}.  Labels
are texts or integers; the names of integers are taken from the schema's metadata (`ClassLabel`), where there are any.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from samdeploy.arrays import Int64Array
from samdeploy.data.dataset import OptionValue, Samples
from samdeploy.data.sets.column_images import ArrowImages, ParquetImages, arrow_table
from samdeploy.data.sets.columns import choose_columns
from samdeploy.data.sets.image_list import ImageList, check_files, read_split, split_of_file
from samdeploy.data.stored import container_digests, container_samples, container_stamps, file_samples
from samdeploy.errors import PackageMissing
from samdeploy.terminal import printable


def read_column_files(found: ImageList, options: Mapping[str, OptionValue]) -> None:
    """Append the rows of all files; of the images themselves nothing is read.

    Raises:
        PackageMissing: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise PackageMissing(
            f"table: {printable(found.given.root)} needs the package pyarrow: pip install 'samdeploy[parquet]'"
        ) from None
    import pyarrow as pa

    kinds, counts = set(), []
    for file in found.given.files:
        before = len(found.names)
        try:
            if file.suffix.lower() == ".parquet":
                with pq.ParquetFile(file) as opened:
                    read = partial(_read_parquet, opened)
                    kinds.add(_read_rows(found, file, opened.schema_arrow, read, options))
            else:
                table = arrow_table(file)
                kinds.add(_read_rows(found, file, table.schema, table.column, options))
        except FileNotFoundError:
            found.faults.add(f"{printable(file)}: no such file")
        except (OSError, pa.ArrowException) as error:
            found.faults.add(f"{printable(file)}: damaged, or no {file.suffix} file ({error}); copy it again")
        counts.append(len(found.names) - before)
    kinds.discard(None)
    if len(kinds) > 1:
        found.faults.add("the files' columns of images are of different types")
    if kinds == {("", True)}:
        check_files(found)
        found.samples = file_samples
    elif len(kinds) == 1:
        column = next(name for name, _ in filter(None, kinds))
        is_parquet = found.given.files[0].suffix.lower() == ".parquet"
        paths = tuple(map(str, found.given.files))
        images = (ParquetImages if is_parquet else ArrowImages)(paths, tuple(counts), column)
        found.samples = partial(_samples, paths, counts, images)
        found.digests = partial(container_digests, paths, counts, images, column)


def _read_parquet(file: Any, column: str) -> Any:
    return file.read([column]).column(0)


def _read_rows(
    found: ImageList, file: Path, schema: Any, read: Any, options: Mapping[str, OptionValue]
) -> tuple[str, bool] | None:
    """Append the rows of one file.

    Args:
        read: name of a column -> its values, an Arrow array.

    Returns:
        The name of the column that holds images, or "" and True where it holds paths; None after a fault.
    """
    columns = choose_columns(schema.names, options, str(file), found.faults)
    if columns is None:
        return None
    are_paths = _holds_paths(schema.field(columns.image).type)
    if are_paths is None:
        type_ = schema.field(columns.image).type
        what = f"{printable(file)}: column {columns.image!r} holds {type_}; paths or encoded images expected"
        found.faults.add(f"{what}. Name another: --set data.options.path_column=NAME")
        return None
    labels = read(columns.label).to_pylist()
    names = class_names(schema, columns.label)
    if names and found.classes not in ((), names):
        found.faults.add(f"{printable(file)}: its classes are not those of the files before it")
    found.classes = found.classes or names
    splits = read(columns.split).to_pylist() if columns.split else None
    of_file = split_of_file(found, file)
    paths = read(columns.image).to_pylist() if are_paths else None
    short = found.given.short(file)
    for row, label in enumerate(labels):
        where = f"{short}#{row}"
        split = read_split(str(splits[row] or ""), found, where) if splits else of_file
        text = _label(label, names, found, where)
        # Joined as texts: a Path each would double the time.
        name = f"{file}#{row}" if paths is None else os.path.join(file.parent, paths[row] or "")  # noqa: PTH118
        found.add(name, text, split, where)
    return ("", True) if are_paths else (columns.image, False)


def _holds_paths(type_: Any) -> bool | None:
    """Whether a column of this Arrow type holds paths rather than images; None where it holds neither."""
    from pyarrow import types

    if types.is_string(type_) or types.is_large_string(type_):
        return True
    if types.is_struct(type_):
        type_ = type_.field("bytes").type if type_.get_field_index("bytes") >= 0 else None
    return False if type_ is not None and (types.is_binary(type_) or types.is_large_binary(type_)) else None


def class_names(schema: Any, column: str) -> tuple[str, ...]:
    """The names that Hugging Face's metadata give the integers of a column; () where there are none."""
    try:
        feature = json.loads(schema.metadata[b"huggingface"])["info"]["features"][column]
        return tuple(map(str, feature["names"]))
    except (ValueError, LookupError, TypeError):
        return ()


def _label(label: object, names: Sequence[str], found: ImageList, where: str) -> str:
    if isinstance(label, int) and not isinstance(label, bool):
        if not names:
            return str(label)
        if 0 <= label < len(names):
            return names[label]
        found.faults.add_row(f"label out of range, 0 to {len(names) - 1} expected", f"{where} ({label})")
    elif isinstance(label, str) and label.strip():
        return label.strip()
    else:
        found.faults.add_row("without a label that is a text or an integer", f"{where} ({str(label)[:40]})")
    return ""


def _samples(
    paths: Sequence[str],
    counts: Sequence[int],
    images: ParquetImages | ArrowImages,
    names: Sequence[str],
    labels: Int64Array,
) -> Samples:
    containers = np.repeat(np.arange(len(paths)), counts)
    rows = np.concatenate([np.arange(count) for count in counts])
    return container_samples(names, labels, images, partial(container_stamps, paths, containers, rows))
