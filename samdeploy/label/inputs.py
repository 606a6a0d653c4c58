"""What is to be labelled: rows with a name and a way to the encoded image, in an order that does not change.

Lists of every kind (a folder, a pattern, a text file, a column of a table) are written out as one file of names, one
JSON text a line, beside the results: what is labelled is on record, any row is found in it without reading the others,
and memory does not grow with it.  Images inside tars and Parquet files are read where they lie.
"""

from __future__ import annotations

import codecs
import csv
import glob  # a pattern may begin anywhere, pathlib's only below a folder
import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from samdeploy.data.sets.columns import delimiter_of
from samdeploy.errors import ImageError, InputError
from samdeploy.files import names_file, temporary_name
from samdeploy.images.walk import find_images, is_image_name, natural_key
from samdeploy.label.containers import Parquets, Row, Tars, batches, parquet_file

# Readers of Parquet folders pass over names that begin so.
NAMES_FILE = "_input.jsonl"
# Rows between two places of the file of names that are known without reading it.
_STRIDE = 1000
# The size of every such row's file is recorded, and of the first thousand's.
_SIZE_EVERY = 100
_COLUMNS = ("uri", "url", "path", "file", "file_name", "filename", "image_path", "image")
_TARS, _PARQUETS, _TABLES = (".tar",), (".parquet",), (".csv", ".tsv")
# The byte-order marks, as surrogateescape has them.
_UTF16 = tuple(mark.decode("utf-8", "surrogateescape") for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
_LOOKED_AT = 1 << 16  # bytes of a list, to see that it is text


class ChangedInput(InputError):
    """The input has other names, or files of other sizes, than when its labelling began."""


class Input(Protocol):
    """All rows.  It can be pickled, and read on any machine that sees the same files."""

    count: int
    # What the results record of it; other results than these are refused.
    identity: Mapping[str, Any]

    def rows(self, start: int, stop: int) -> Iterator[Row]:
        """Those from `start` to `stop`, as they are read."""
        ...


def open_input(text: str, folder: Path, column: str, fetch: Callable[[str], bytes], *, known: bool) -> Input:
    """What someone means by `text`.

    Args:
        text: "-", a folder, a pattern, or a file: a list, a table, a tar.  Patterns may name several tables or tars.
        folder: of the results; gets the file of names.
        column: of tables, with names or encoded images; "": a usual one.
        fetch: an address such as s3://... to its bytes.
        known: `folder` has the names already; standard input is then not read again.

    Raises:
        InputError: there is nothing, or nothing that is understood.
    """
    if text == "-":
        _check_column(column, "standard input")
        return _standard_input(_Names(folder / NAMES_FILE, fetch, {"kind": "standard input"}), known)
    if "://" in text:
        raise InputError(f"{text}: an address found; write addresses into a list, one a line, and give the list")
    files = [Path(text)]
    if files[0].is_fifo():
        raise InputError(f"{text}: a pipe found; give - as the input, and the list through standard input")
    if glob.has_magic(text) and not files[0].exists():
        matches = sorted(map(Path, glob.iglob(text, recursive=True)), key=_key)  # noqa: PTH207
        if not matches:
            raise InputError(f"{text}: no file matches")
        files = [file for file in matches if not file.is_dir()] or matches
        if len(files) > 1 and files[0].is_dir():
            raise InputError(f"{text}: {len(files)} folders found; name one, or the images in them: '{text}/*.png'")
    kinds = {file.suffix.lower() for file in files if not file.is_dir()}
    if len(files) == 1 and files[0].is_dir():
        inside = [file for file in files[0].iterdir() if file.suffix.lower() in _TARS + _PARQUETS]
        images = find_images(files[0])
        if images.problems:  # else nobody would miss what is in there
            raise InputError(f"{images.problems[0]}; make it readable, or move it away")
        if not inside or images.images:
            _check_column(column, f"{text}, a folder of images,")
            for note in images.notes():
                print(note, file=sys.stderr)
            inside_names = (str(path.relative_to(files[0])) for path in images.images)
            return _Names(folder / NAMES_FILE, fetch, {"kind": "folder"}, files[0]).written(inside_names)
        files, kinds = sorted(inside, key=_key), {file.suffix.lower() for file in inside}
    are_images = all(is_image_name(file.name) for file in files)
    for file in files:
        if not are_images and not file.exists():
            raise InputError(f"{file}: no such file; a folder, a pattern, a list, a table or tars expected")
    if not kinds <= set(_PARQUETS + _TABLES):
        _check_column(column, text)
    if kinds <= set(_TARS):
        return Tars(files)
    if kinds <= set(_PARQUETS):
        return _open_parquet(files, folder, column, fetch)
    if are_images:
        return _Names(folder / NAMES_FILE, fetch, {"kind": "pattern"}).written(map(str, files))
    if len(files) > 1:
        found = f"files of several kinds ({', '.join(sorted(kinds))})" if len(kinds) > 1 else f"{len(files)} lists"
        raise InputError(f"{text}: {found} found; one list, or tars, Parquet files or images alone expected")
    read = partial(_column, column=column) if kinds <= set(_TABLES) else _list
    return _Names(folder / NAMES_FILE, fetch, {"kind": "list"}, files[0].parent).written(read(files[0]))


def _check_column(column: str, what: str) -> None:
    if column:
        raise InputError(f"--column {column!r}: {what} has no columns; leave --column out, or name a table")


def _standard_input(names: _Names, known: bool) -> Input:
    lines = iter(()) if sys.stdin is None else _lines(sys.stdin.buffer)
    first = next(lines, None)
    if first is None and known:
        return names.written(names.names())
    return names.written(itertools.chain(() if first is None else [first], lines))


def _key(path: Path) -> list[Any]:
    return [natural_key(part) for part in path.parts]


def _lines(file: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(file):
        if number == 0:
            line = line.removeprefix(b"\xef\xbb\xbf")  # a byte-order mark
        if b"\0" in line:
            raise InputError("standard input holds zero bytes; a list has a path on each line (find without -print0)")
        text = line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
        if text:
            yield text


def _list(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        start = file.read(_LOOKED_AT)
        if b"\0" in start or path.suffix.lower() in (".gz", ".tgz", ".zip", ".zst", ".xz", ".bz2", ".7z"):
            raise InputError(f"{path}: no text; a list has a path on each line, and an archive is unpacked first")
        file.seek(0)
        yield from _lines(file)


def _column(path: Path, column: str) -> Iterator[str]:
    names, rows = csv_rows(path)
    name = _choose(names, column, str(path))
    for row in rows:
        yield row[name] or ""


def csv_rows(path: Path) -> tuple[Sequence[str], Iterator[Mapping[str, str | None]]]:
    """The columns of a .csv or .tsv, and its rows as they are read.

    Raises:
        InputError: while they are read: a quote is not closed.
    """
    text = path.open(newline="", encoding="utf-8-sig", errors="surrogateescape")
    header = text.readline()
    if header.startswith(_UTF16):
        text.close()
        raise InputError(f"{path}: UTF-16 found; save it again with the encoding UTF-8")
    # Quotes mean something in CSV alone; one that is not closed would swallow the rows behind it.
    form: Mapping[str, Any] = {"quoting": csv.QUOTE_NONE} if path.suffix.lower() == ".tsv" else {}
    csv.field_size_limit(1 << 24)
    lines = itertools.chain([header], text)
    reader = csv.DictReader(lines, strict=True, delimiter=delimiter_of(path, header), **form)

    def rows() -> Iterator[Mapping[str, str | None]]:
        with text:
            try:
                yield from reader
            except csv.Error as error:
                raise InputError(f"{path}: row {reader.line_num}: {error}; a quote that is not closed?") from None

    try:
        return list(reader.fieldnames or []), rows()
    except csv.Error as error:
        text.close()
        raise InputError(f"{path}: row {reader.line_num}: {error}; a quote that is not closed?") from None


def _choose(names: Iterable[str], column: str, where: str) -> str:
    names = list(names)
    found = column if column in names else next((name for name in _COLUMNS if not column and name in names), None)
    if found is None:
        if not names:
            raise InputError(f"{where}: is empty; the names of columns, such as path, and rows expected")
        wanted = repr(column) if column else f"one of {', '.join(_COLUMNS)}"
        raise InputError(
            f"{where}: columns {', '.join(map(repr, names[:8]))} found, {wanted} expected; --column NAME names it"
        )
    if names.count(found) > 1:
        raise InputError(f"{where}: {names.count(found)} columns are called {found!r}")
    return found


class _Names:
    """A file of names: paths, or addresses."""

    def __init__(
        self, path: Path, fetch: Callable[[str], bytes], identity: Mapping[str, Any], base: Path = Path()
    ) -> None:
        self._path, self._fetch, self._base = path, fetch, base.absolute()
        self.count = 0
        self.identity: Mapping[str, Any] = identity
        self._places = [0]
        if path.is_file():
            self._index()

    def written(self, names: Iterable[str]) -> _Names:
        """With these names, which are compared with what is there already.

        Raises:
            ChangedInput: it has others.
        """
        temporary = temporary_name(self._path)
        try:
            with names_file(self._path), temporary.open("wb") as file:
                for row, name in enumerate(names):
                    file.write(json.dumps([name, self._size(row, name)]).encode() + b"\n")
            if self._path.is_file():
                if _digest(temporary) != _digest(self._path):
                    raise ChangedInput(
                        f"{self._path.parent}: has labels of another input; name another folder, or --force begins anew"
                    )
            else:
                temporary.rename(self._path)
        finally:
            temporary.unlink(missing_ok=True)
        self._index()
        return self

    def names(self) -> Iterator[str]:
        """All of them, as they were given."""
        with self._path.open("rb") as file:
            for line in file:
                yield json.loads(line)[0]

    def _size(self, row: int, name: str) -> int | None:
        """Of some files, so that others of the same names are seen to be others."""
        if (row >= _STRIDE and row % _SIZE_EVERY) or "://" in name:
            return None
        try:
            return (self._base / name).stat().st_size
        except (OSError, ValueError):
            return None

    def _index(self) -> None:
        self.count, self._places, place = 0, [], 0
        digest = hashlib.sha256()
        with self._path.open("rb") as file:
            for line in file:
                if self.count % _STRIDE == 0:
                    self._places.append(place)
                place += len(line)
                self.count += 1
                digest.update(line)
        self.identity = {**self.identity, "rows": self.count, "sha256": digest.hexdigest()}

    def rows(self, start: int, stop: int) -> Iterator[Row]:
        if start >= stop:
            return
        with self._path.open("rb") as file:
            file.seek(self._places[start // _STRIDE])
            for line in itertools.islice(file, start % _STRIDE, start % _STRIDE + stop - start):
                name = json.loads(line)[0]
                yield Row(name, partial(self._read, name))

    def _read(self, name: str) -> Path | bytes:
        if "://" in name:
            return self._fetch(name)
        if not name or "\0" in name:
            raise ImageError(f"{name!r}: no path")
        return self._base / name


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_parquet(files: list[Path], folder: Path, column: str, fetch: Callable[[str], bytes]) -> Input:
    import pyarrow as pa

    schema = parquet_file(files[0]).schema_arrow
    name = _choose(schema.names, column, str(files[0]))
    kind = schema.field(name).type
    for file in files[1:]:
        other = parquet_file(file).schema_arrow
        if other.get_field_index(name) < 0 or other.field(name).type != kind:
            raise InputError(f"{file}: no column {name!r} of {kind}, which {files[0].name} has")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        names = (text or "" for file in files for batch in batches(file, name) for text in batch.to_pylist())
        identity = {"kind": "Parquet column"}
        return _Names(folder / NAMES_FILE, fetch, identity, files[0].parent).written(names)
    content = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
    if not (pa.types.is_binary(content) or pa.types.is_large_binary(content)):
        raise InputError(f"{files[0]}: column {name!r} holds {kind}; texts, or encoded images, expected")
    return Parquets(files, name)
