"""Encoded images out of a column of Parquet or Arrow files, one at a time, in little memory."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from samdeploy.data.stream import images_ahead
from samdeploy.errors import ImageError

# Bytes that are read of a Parquet file at once.
_PIECE_BYTES = 4 << 20
# Read pieces that are kept, in bytes: at least so much, and what `stream_images` may have in work at a time.
_KEPT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows `start` to `stop` of one file; `images` is an Arrow array."""

    file: int
    start: int
    stop: int
    images: Any


class _ColumnImages:
    """`images(index)`: the encoded image of one row of all files together; picklable, and safe for threads."""

    def __init__(self, paths: tuple[str, ...], counts: tuple[int, ...], column: str) -> None:
        """`counts`: rows of each file."""
        self._given = paths, counts, column
        self._paths, self._column = paths, column
        self._starts = [0, *itertools.accumulate(counts)]
        self._lock = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._given

    def __call__(self, index: int) -> bytes:
        file = bisect_right(self._starts, index) - 1
        row = index - self._starts[file]
        with self._lock:
            piece = self._piece(file, row)
        value: Any = piece.images[row - piece.start].as_py()
        if isinstance(value, dict):
            content, path = value.get("bytes"), value.get("path")
            if content is None and path:  # an image that was not put into the table
                return (Path(self._paths[file]).parent / str(path)).read_bytes()
            value = content
        if value is None:
            raise ImageError("the row holds no image")
        return bytes(value)

    def _piece(self, file: int, row: int) -> _Piece:
        raise NotImplementedError


class ArrowImages(_ColumnImages):
    """Of Arrow files, which are mapped."""

    def __init__(self, paths: tuple[str, ...], counts: tuple[int, ...], column: str) -> None:
        super().__init__(paths, counts, column)
        self._open: dict[int, _Piece] = {}

    def _piece(self, file: int, row: int) -> _Piece:
        if file not in self._open:
            images = arrow_table(Path(self._paths[file])).column(self._column)
            self._open[file] = _Piece(file, 0, len(images), images)
        return self._open[file]


class ParquetImages(_ColumnImages):
    """Of Parquet files, which are unpacked from the beginning of a row group: quick in order, slow at random."""

    def __init__(self, paths: tuple[str, ...], counts: tuple[int, ...], column: str) -> None:
        super().__init__(paths, counts, column)
        self._kept: deque[_Piece] = deque()
        self._bytes = 0
        # Where reading goes on: file, group, next row, and what is still to come of the group.
        self._at = (-1, -1, 0)
        self._rest: Iterator[_Piece] = iter(())
        self._file: tuple[int, Any] = (-1, None)

    def _piece(self, file: int, row: int) -> _Piece:
        for piece in reversed(self._kept):
            if piece.file == file and piece.start <= row < piece.stop:
                return piece
        opened = self._opened(file)
        metadata = opened.metadata
        starts = [0, *itertools.accumulate(metadata.row_group(g).num_rows for g in range(metadata.num_row_groups))]
        group = bisect_right(starts, row) - 1
        if self._at[:2] != (file, group) or self._at[2] > row:
            self._rest = self._pieces(opened, file, group, starts[group])
        for piece in self._rest:
            self._at = (file, group, piece.stop)
            self._keep(piece)
            if piece.start <= row < piece.stop:
                return piece
        raise ImageError(f"{self._paths[file]} changed while it was read")

    def _opened(self, file: int) -> Any:
        import pyarrow.parquet as pq

        if self._file[0] != file:
            # Without a buffer a whole column of the row group would be read at once.
            self._file = file, pq.ParquetFile(self._paths[file], buffer_size=1 << 20, pre_buffer=False)
        return self._file[1]

    def _pieces(self, opened: Any, file: int, group: int, start: int) -> Iterator[_Piece]:
        record = opened.metadata.row_group(group)
        columns = (record.column(index) for index in range(record.num_columns))
        size = sum(
            column.total_uncompressed_size
            for column in columns
            if column.path_in_schema.split(".")[0] == self._column
        )  # fmt: skip
        self._row_bytes = max(1, size // max(1, record.num_rows))
        rows = max(1, _PIECE_BYTES // self._row_bytes)
        for batch in opened.iter_batches(rows, row_groups=[group], columns=[self._column], use_threads=False):
            yield _Piece(file, start, start + len(batch), batch.column(0))
            start += len(batch)

    def _keep(self, piece: _Piece) -> None:
        self._kept.append(piece)
        self._bytes += piece.images.nbytes
        most = max(_KEPT_BYTES, images_ahead() * self._row_bytes)
        while self._bytes > most and len(self._kept) > 1:
            self._bytes -= self._kept.popleft().images.nbytes


def arrow_table(path: Path) -> Any:
    """An Arrow file, as a stream or with its index; mapped, so that nothing of it is in memory yet.

    Raises:
        OSError: it cannot be opened.
        pyarrow.ArrowException: it is no Arrow file.
    """
    import pyarrow as pa

    source = pa.memory_map(str(path))
    try:
        return pa.ipc.open_stream(source).read_all()
    except pa.ArrowInvalid:
        return pa.ipc.open_file(source).read_all()
