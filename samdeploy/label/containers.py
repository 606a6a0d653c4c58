"""Images inside tars and Parquet files: rows with a name and a way to the encoded image, read where they lie."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from samdeploy.data.file_notes import noted
from samdeploy.data.texts import PackedTexts
from samdeploy.errors import ImageError, InputError, first_line
from samdeploy.images.walk import counted, is_image_name

_SAMPLE = 1 << 16  # bytes at three places of a file that tell it from another one


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


@dataclass(frozen=True, slots=True)
class _Container:
    """One file with images, from row `first` on; `name` tells it from the others."""

    path: Path
    name: str
    first: int
    count: int


class Containers:
    """Images in several files."""

    kind = ""

    def __init__(self, files: list[Path]) -> None:
        self._files: list[_Container] = []
        self.count = 0
        folders = {file.absolute().parent for file in files}
        base = folders.pop() if len(folders) == 1 else os.path.commonpath(folders)
        for file in files:
            count, path = self._count(file), file.absolute()
            self._files.append(_Container(path, str(path.relative_to(base)), self.count, count))
            self.count += count
        files_facts = [[one.name, one.count, _fingerprint(one.path)] for one in self._files]
        digest = hashlib.sha256(json.dumps(files_facts).encode()).hexdigest()  # short: every part repeats it
        self.identity: Mapping[str, Any] = {"kind": self.kind, "rows": self.count, "sha256": digest}

    def rows(self, start: int, stop: int) -> Iterator[Row]:
        """Those from `start` to `stop`, as they are read."""
        for one in self._files:
            first, last = max(start - one.first, 0), min(stop - one.first, one.count)
            if first < last:
                yield from self._rows(one, first, last)

    def _count(self, file: Path) -> int:
        raise NotImplementedError

    def _rows(self, file: _Container, first: int, last: int) -> Iterator[Row]:
        raise NotImplementedError


class Tars(Containers):
    """Members with an image's suffix, in their order."""

    kind = "tar"

    def _count(self, file: Path) -> int:
        found = _members(file)
        if found["links"]:
            print(f"{file}: {counted(int(found['links']), 'link')} to images passed over", file=sys.stderr)
        return len(found["offsets"])

    def _rows(self, file: _Container, first: int, last: int) -> Iterator[Row]:
        found = _members(file.path)
        names = PackedTexts()
        names.extend(found["names"], found["ends"])
        for row in range(first, last):
            offset, size = int(found["offsets"][row]), int(found["sizes"][row])
            yield Row(f"{file.name}#{names[row]}", partial(_part, file.path, offset, size))


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
    return noted(path, "images of a tar 3", partial(_read_members, path))


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
            if not _ends_at(file.fileno(), tar.offset):
                raise InputError(
                    f"{path}: data found behind its end at byte {tar.offset:,}: damaged, or several tars in one file; "
                    "make it again"
                )
    except tarfile.TarError as error:
        raise InputError(f"{path}: damaged or compressed ({error}); unpack it, or make it again") from None
    content, ends = names.packed()
    offsets, sizes = np.array(places, np.int64).reshape(-1, 2).T
    return {"names": content, "ends": ends, "offsets": offsets, "sizes": sizes, "links": np.array(links)}


def _ends_at(file: int, place: int) -> bool:
    """Whether nothing but zeros follows."""
    while piece := os.pread(file, _SAMPLE, place):
        if any(piece):
            return False
        place += len(piece)
    return True


def parquet_file(path: Path) -> Any:
    """Opened so that its pages are read one by one: a row group may be larger than the memory.

    Raises:
        InputError: it is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: no Parquet file, or damaged ({error})") from None


def batches(path: Path, column: str, groups: list[int] | None = None) -> Iterator[Any]:
    """A column, Arrow arrays of up to 64 rows, of some row groups or all.

    Raises:
        InputError: the file is damaged.
    """
    import pyarrow as pa

    try:
        for batch in parquet_file(path).iter_batches(64, row_groups=groups, columns=[column]):
            yield batch.column(0)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: damaged ({first_line(error)})") from None


class Parquets(Containers):
    """Encoded images in a column."""

    kind = "Parquet images"

    def __init__(self, files: list[Path], column: str) -> None:
        self._column = column
        super().__init__(files)

    def _count(self, file: Path) -> int:
        count: int = parquet_file(file).metadata.num_rows
        return count

    def _rows(self, file: _Container, first: int, last: int) -> Iterator[Row]:
        metadata = parquet_file(file.path).metadata
        sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        ends = list(itertools.accumulate(sizes))
        groups = [group for group, end in enumerate(ends) if end > first and end - sizes[group] < last]
        row = ends[groups[0]] - sizes[groups[0]]
        for values in batches(file.path, self._column, groups):
            if row + len(values) > first:
                for place, value in enumerate(values):
                    if first <= row + place < last:
                        yield Row(f"{file.name}#{row + place}", partial(_content, file.path, value))
            row += len(values)
            if row >= last:
                return


def _content(file: Path, value: Any) -> Path | bytes:
    found = value.as_py()
    content, path = (found.get("bytes"), found.get("path")) if isinstance(found, dict) else (found, None)
    if content is None and isinstance(path, str) and path:  # an image that was not put into the table
        if not os.path.isfile(file.parent / path):  # noqa: PTH113 - pathlib's fails for names that no file can have
            raise ImageError(f"no image in this row, and beside {file.name} no file {path!r}")
        return file.parent / path
    if content is None:
        raise ImageError("no image in this row")
    return bytes(content)
