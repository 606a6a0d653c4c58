"""What is to be labelled: rows with a name and a way to the encoded image, in an order that does not change.

Lists of every kind (a folder, a pattern, a text file, a column of a table) are written out as one file of names, one
JSON text a line, beside the results: what is labelled is on record, any row is found in it without reading the others,
and memory does not grow with it.  Images inside tars and Parquet files are read where they lie.
"""

from __future__ import annotations

import csv
import glob  # a pattern may begin anywhere, pathlib's only below a folder
import hashlib
import itertools
import json
import os
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from samdeploy.data.file_notes import noted
from samdeploy.data.texts import PackedTexts
from samdeploy.errors import ImageError, InputError, first_line
from samdeploy.files import temporary_name
from samdeploy.images.walk import counted, find_images, is_image_name, natural_key

# Readers of Parquet folders pass over names that begin so.
NAMES_FILE = "_input.jsonl"
# Rows between two places of the file of names that are known without reading it.
_STRIDE = 1000
# The size of every such row's file is recorded, and of the first thousand's.
_SIZE_EVERY = 100
_SAMPLE = 1 << 16  # bytes at three places of a container that tell it from another one
_COLUMNS = ("uri", "url", "path", "file", "file_name", "filename", "image_path", "image")
_TARS, _PARQUETS, _TABLES = (".tar",), (".parquet",), (".csv", ".tsv")
_LOOKED_AT = 1 << 16  # bytes of a list, to see that it is text


@dataclass(frozen=True, slots=True)
class Row:
    """One image.

    Attributes:
        uri: what it is called in the results.
        read: gives a path, or the encoded image.

    Raises (of `read`):
        ImageError: it is not to be had.
    """

    uri: str
    read: Callable[[], Path | bytes]


class Input(Protocol):
    """All rows."""

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
        return _standard_input(_Names(folder / NAMES_FILE, fetch, {"kind": "standard input"}), known)
    files = [Path(text)]
    if glob.has_magic(text) and not files[0].exists():
        files = sorted(map(Path, glob.iglob(text, recursive=True)), key=_key)  # noqa: PTH207
        if not files:
            raise InputError(f"{text}: no file is called so")
    kinds = {file.suffix.lower() for file in files if not file.is_dir()}
    if len(files) == 1 and files[0].is_dir():
        inside = [file for file in files[0].iterdir() if file.suffix.lower() in _TARS + _PARQUETS]
        images = find_images(files[0])
        if not inside or images.images:
            for problem in (*images.problems, *images.notes()):
                print(problem, file=sys.stderr)
            inside_names = (str(path.relative_to(files[0])) for path in images.images)
            return _Names(folder / NAMES_FILE, fetch, {"kind": "folder"}, files[0]).written(inside_names)
        files, kinds = sorted(inside, key=_key), {file.suffix.lower() for file in inside}
    are_images = all(is_image_name(file.name) for file in files)
    for file in files:
        if not are_images and not file.exists():
            raise InputError(f"{file}: no such file; a folder, a pattern, a list, a table or tars expected")
    if kinds <= set(_TARS):
        return _Tars(files)
    if kinds <= set(_PARQUETS):
        return _open_parquet(files, folder, column, fetch)
    if are_images:
        return _Names(folder / NAMES_FILE, fetch, {"kind": "pattern"}).written(map(str, files))
    if len(files) > 1:
        raise InputError(f"{text}: files of several kinds ({', '.join(sorted(kinds))}); name one kind")
    read = partial(_column, column=column) if kinds <= set(_TABLES) else _list
    return _Names(folder / NAMES_FILE, fetch, {"kind": "list"}, files[0].parent).written(read(files[0]))


def _standard_input(names: _Names, known: bool) -> Input:
    lines = iter(()) if sys.stdin is None else _lines(sys.stdin.buffer)
    first = next(lines, None)
    if first is None and known:  # nothing to compare with
        return names
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
    # Quotes mean something in CSV alone; one that is not closed would swallow the rows behind it.
    form: Mapping[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if path.suffix.lower() == ".tsv" else {}
    csv.field_size_limit(1 << 24)
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.DictReader(file, strict=True, **form)
        try:
            name = _choose(reader.fieldnames or [], column, str(path))
            for row in reader:
                yield row[name] or ""
        except csv.Error as error:
            raise InputError(f"{path}: row {reader.line_num}: {error}; a quote that is not closed?") from None


def _choose(names: Iterable[str], column: str, where: str) -> str:
    names = list(names)
    found = column if column in names else next((name for name in _COLUMNS if not column and name in names), None)
    if found is None:
        wanted = repr(column) if column else f"one of {', '.join(_COLUMNS)}"
        raise InputError(
            f"{where}: columns {', '.join(map(repr, names[:20]))} found, {wanted} expected; --column NAME names it"
        )
    if names.count(found) > 1:
        raise InputError(f"{where}: {names.count(found)} columns are called {found!r}")
    return found


class _Names:
    """A file of names: paths, or addresses."""

    def __init__(
        self, path: Path, fetch: Callable[[str], bytes], identity: Mapping[str, Any], base: Path = Path()
    ) -> None:
        self._path, self._fetch, self._base = path, fetch, base
        self.count = 0
        self.identity: Mapping[str, Any] = identity
        self._places = [0]
        if path.is_file():
            self._index()

    def written(self, names: Iterable[str]) -> _Names:
        """With these names, which are compared with what is there already.

        Raises:
            InputError: it has others.
        """
        temporary = temporary_name(self._path)
        try:
            with temporary.open("wb") as file:
                for row, name in enumerate(names):
                    file.write(json.dumps([name, self._size(row, name)]).encode() + b"\n")
            if self._path.is_file():
                if _digest(temporary) != _digest(self._path):
                    raise InputError(
                        f"{self._path}: the input is not what it was when this labelling began; --force begins anew, "
                        "or name another folder"
                    )
            else:
                temporary.rename(self._path)
        finally:
            temporary.unlink(missing_ok=True)
        self._index()
        return self

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


@dataclass(frozen=True, slots=True)
class _Container:
    """One file with images, from row `first` on."""

    path: Path
    first: int
    count: int


class _Containers:
    """Images in several files."""

    kind = ""

    def __init__(self, files: list[Path]) -> None:
        self._files: list[_Container] = []
        self.count = 0
        for file in files:
            count = self._count(file)
            self._files.append(_Container(file, self.count, count))
            self.count += count
        self.identity: Mapping[str, Any] = {
            "kind": self.kind,
            "rows": self.count,
            "files": [[self._short(one.path), one.count, _fingerprint(one.path)] for one in self._files],
        }

    def _short(self, path: Path) -> str:
        """From where the files' folders part: what tells them from one another."""
        folders = {one.path.parent for one in self._files}
        return path.name if len(folders) == 1 else str(path.relative_to(os.path.commonpath(folders)))

    def rows(self, start: int, stop: int) -> Iterator[Row]:
        for one in self._files:
            first, last = max(start - one.first, 0), min(stop - one.first, one.count)
            if first < last:
                yield from self._rows(one.path, first, last)

    def _count(self, file: Path) -> int:
        raise NotImplementedError

    def _rows(self, file: Path, first: int, last: int) -> Iterator[Row]:
        raise NotImplementedError


class _Tars(_Containers):
    """Members with an image's suffix, in their order."""

    kind = "tar"

    def _count(self, file: Path) -> int:
        found = _members(file)
        if found["links"]:
            print(f"{file}: {counted(int(found['links']), 'link')} to images passed over", file=sys.stderr)
        return len(found["offsets"])

    def _rows(self, file: Path, first: int, last: int) -> Iterator[Row]:
        found = _members(file)
        names = PackedTexts()
        names.extend(found["names"], found["ends"])
        for row in range(first, last):
            offset, size = int(found["offsets"][row]), int(found["sizes"][row])
            yield Row(f"{self._short(file)}#{names[row]}", partial(_part, file, offset, size))


def _fingerprint(path: Path) -> str:
    """Of the length and of three places."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for place in (0, max(0, size // 2), max(0, size - _SAMPLE)):
            file.seek(place)
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:32]


def _part(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        content = os.pread(file.fileno(), size, offset)
    if len(content) != size:
        raise ImageError(f"{len(content)} of {size} bytes found: the tar is cut off")
    return content


def _members(path: Path) -> Mapping[str, Any]:
    return noted(path, "images of a tar 2", partial(_read_members, path))


def _read_members(path: Path) -> Mapping[str, Any]:
    names, places, links = PackedTexts(), [], 0
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                base = member.name.rpartition("/")[2]
                if member.isreg() and is_image_name(base) and not base.startswith("."):
                    names.append(member.name)
                    places.append((member.offset_data, member.size))
                links += (member.issym() or member.islnk()) and is_image_name(base)
                tar.members = []  # type: ignore[attr-defined]  # it would keep every header
            end = os.pread(file.fileno(), tarfile.BLOCKSIZE, tar.offset)
            if len(end) < tarfile.BLOCKSIZE or any(end):  # zeros close a tar
                raise InputError(f"{path}: damaged or cut off at byte {tar.offset:,}")
    except tarfile.TarError as error:
        raise InputError(f"{path}: damaged or compressed ({error}); unpack it, or make it again") from None
    content, ends = names.packed()
    offsets, sizes = np.array(places, np.int64).reshape(-1, 2).T
    return {"names": content, "ends": ends, "offsets": offsets, "sizes": sizes, "links": np.array(links)}


def _open_parquet(files: list[Path], folder: Path, column: str, fetch: Callable[[str], bytes]) -> Input:
    import pyarrow as pa

    schema = _parquet(files[0]).schema_arrow
    name = _choose(schema.names, column, str(files[0]))
    kind = schema.field(name).type
    for file in files[1:]:
        other = _parquet(file).schema_arrow
        if other.get_field_index(name) < 0 or other.field(name).type != kind:
            raise InputError(f"{file}: no column {name!r} of {kind}, which {files[0].name} has")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        names = (text or "" for file in files for batch in _batches(file, name) for text in batch.to_pylist())
        identity = {"kind": "Parquet column"}
        return _Names(folder / NAMES_FILE, fetch, identity, files[0].parent).written(names)
    content = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
    if not (pa.types.is_binary(content) or pa.types.is_large_binary(content)):
        raise InputError(f"{files[0]}: column {name!r} holds {kind}; texts, or encoded images, expected")
    return _Parquets(files, name)


def _parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Page by page: a row group may be larger than the memory.
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: no Parquet file, or damaged ({error})") from None


def _batches(path: Path, column: str, groups: list[int] | None = None) -> Iterator[Any]:
    import pyarrow as pa

    try:
        for batch in _parquet(path).iter_batches(64, row_groups=groups, columns=[column]):
            yield batch.column(0)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: damaged ({first_line(error)})") from None


class _Parquets(_Containers):
    """Encoded images in a column."""

    kind = "Parquet images"

    def __init__(self, files: list[Path], column: str) -> None:
        self._column = column
        super().__init__(files)

    def _count(self, file: Path) -> int:
        count: int = _parquet(file).metadata.num_rows
        return count

    def _rows(self, file: Path, first: int, last: int) -> Iterator[Row]:
        metadata = _parquet(file).metadata
        sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        ends = list(itertools.accumulate(sizes))
        groups = [group for group, end in enumerate(ends) if end > first and end - sizes[group] < last]
        row = ends[groups[0]] - sizes[groups[0]]
        for values in _batches(file, self._column, groups):
            if row + len(values) > first:
                for place, value in enumerate(values):
                    if first <= row + place < last:
                        yield Row(f"{self._short(file)}#{row + place}", partial(_content, value))
            row += len(values)
            if row >= last:
                return


def _content(value: Any) -> bytes:
    found = value.as_py()
    content = found.get("bytes") if isinstance(found, dict) else found
    if content is None:
        raise ImageError("no image in this row")
    return bytes(content)
