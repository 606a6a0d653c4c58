"""Read and hash the graph while its runtime is imported: each takes a tenth of a second, on a processor of its own."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from samdeploy.bundle import Bundle
    from samdeploy.bundle.manifest import BundleFile
    from samdeploy.files import SealedFile


class ReadAhead:
    """The future of one sealed file.  (`concurrent.futures` takes 10 ms to import.)

    >>> with ReadAhead(bundle, file) as ahead:
    ...     import onnxruntime
    ...     sealed = ahead.take(file) or bundle.seal(file)
    """

    def __init__(self, bundle: Bundle, file: BundleFile) -> None:
        self._bundle, self._file = bundle, file
        self._found: SealedFile | Exception | None = None
        self._thread = threading.Thread(target=self._read, name="samdeploy-read", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            self._found = self._bundle.seal(self._file)
        except Exception as error:  # raised where the file is asked for
            self._found = error

    def take(self, file: BundleFile) -> SealedFile | None:
        """The sealed file, which the caller closes; None for another file, or where it was taken before.

        Raises:
            BundleError, OSError: as `Bundle.seal` does.
        """
        if file is not self._file:
            return None
        self._thread.join()
        found, self._found = self._found, None
        if isinstance(found, Exception):
            raise found
        return found

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._thread.join()
        if self._found is not None and not isinstance(self._found, Exception):
            self._found.close()
