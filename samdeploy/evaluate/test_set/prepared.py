"""The prepared test images in a temporary file, from which every engine reads the same bytes.

Decoding them once for each engine would cost time, and holding them would cost memory that grows with the set.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from samdeploy.arrays import Int64Array, UInt8Array
from samdeploy.errors import DatasetError


class PreparedImages:
    """Images uint8 [N, H, W, 3] in a file without a name: it is gone when it is closed, or when the process ends in
    whatever way.

    Read with `pread` instead of being mapped, since the pages of a mapped file count as the process's memory.
    """

    def __init__(self, count: int, height: int, width: int) -> None:
        """Take the disk space for all images at once, so that a disk too full is known before the work begins.

        The file lies in $TMPDIR, else in /var/tmp, which unlike /tmp is not held in memory on any system.

        Raises:
            DatasetError: there is not enough space, or the folder cannot be written to.
        """
        self.shape = (count, height, width, 3)
        self._image_bytes = height * width * 3
        self._rows: Int64Array | None = None
        self._appended = 0
        folder = _folder()
        try:
            self._file = tempfile.TemporaryFile(dir=folder, prefix="samdeploy-")  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise DatasetError(self._text(folder, error)) from None
        try:
            os.posix_fallocate(self._file.fileno(), 0, count * self._image_bytes)
        except OSError as error:
            self._file.close()
            raise DatasetError(self._text(folder, error)) from None

    def __len__(self) -> int:
        return self.shape[0]

    def append(self, images: UInt8Array) -> None:
        """Add the next images, uint8 [n, H, W, 3]."""
        data = np.ascontiguousarray(images).data.cast("B")
        place = self._appended * self._image_bytes
        while data.nbytes:  # a signal may cut a write short
            written = os.pwrite(self._file.fileno(), data, place)
            data, place = data[written:], place + written
        self._appended += len(images)

    def keep(self, rows: Int64Array) -> None:
        """From now on only the images at `rows`, int64 [M], are here; the file stays as it is."""
        if len(rows) < len(self):
            self._rows = rows if self._rows is None else self._rows[rows]
            self.shape = (len(rows), *self.shape[1:])

    def batches(self, size: int) -> Iterator[UInt8Array]:
        """All images in order, uint8 [n, H, W, 3], n = `size` but for the last; each the caller's own."""
        return (self._read(start, min(size, len(self) - start)) for start in range(0, len(self), size))

    def take(self, indices: Int64Array) -> UInt8Array:
        """The images at `indices`, int64 [M], in that order: uint8 [M, H, W, 3], the caller's own."""
        return self._at(indices if self._rows is None else self._rows[indices])

    def close(self) -> None:
        """Give the disk space back; calling it again does nothing."""
        self._file.close()

    def __enter__(self) -> PreparedImages:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _read(self, start: int, count: int) -> UInt8Array:
        if self._rows is not None:
            return self._at(self._rows[start : start + count])
        return self._stored(start, count)

    def _at(self, places: Int64Array) -> UInt8Array:
        images = np.empty((len(places), *self.shape[1:]), np.uint8)
        for row, place in enumerate(places):
            images[row] = self._stored(int(place), 1)[0]
        return images

    def _stored(self, start: int, count: int) -> UInt8Array:
        images = np.empty((count, *self.shape[1:]), np.uint8)
        data, place = images.data.cast("B"), start * self._image_bytes
        while data.nbytes:
            found = os.preadv(self._file.fileno(), [data], place)
            if not found:
                raise DatasetError(f"the temporary file of the test images ended at byte {place}; start again")
            data, place = data[found:], place + found
        return images

    def _text(self, folder: Path, error: OSError) -> str:
        count, height, width, _ = self.shape
        size = f"{count * self._image_bytes / 1e6:,.1f} MB"
        return (
            f"the {count:,} prepared test images of {height}x{width} take {size} of disk while the evaluation runs, "
            f"and {folder} cannot give them ({error.strerror}); make room there, or name a folder that has it: "
            "TMPDIR=/path samdeploy eval"
        )


def _folder() -> Path:
    usual = Path("/var/tmp")
    return Path(tempfile.gettempdir()) if os.environ.get("TMPDIR") or not usual.is_dir() else usual
