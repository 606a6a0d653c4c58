"""Read and hash the graph while its runtime is imported: each takes a tenth of a second, on a processor of its own."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING

from samdeploy.bundle import Bundle

if TYPE_CHECKING:
    from samdeploy.bundle.manifest import BundleFile
    from samdeploy.files import SealedFile


@contextmanager
def reading_ahead(bundle: Bundle, backend: str, precision: str) -> Generator[Bundle, None, None]:
    """The bundle, whose graph for `backend` is being read; to be used for one opening.

    A guess: another file than the one that is asked for later costs processor time and nothing else.
    """
    graphs = (bundle.find("graph", backend=backend, precision=name) for name in (precision, "fp32"))
    file = next((graph for graph in graphs if graph is not None), None)
    if file is None:
        yield bundle
        return
    ahead = _Ahead(*(getattr(bundle, field.name) for field in fields(bundle)))
    reading = threading.Thread(target=ahead.start, args=(file,), name="samdeploy-read", daemon=True)
    object.__setattr__(ahead, "_reading", reading)
    reading.start()
    try:
        yield ahead
    finally:
        reading.join()


class _Ahead(Bundle):
    """A bundle with one file sealed, or why it cannot be, at hand; it is given out once."""

    __slots__ = ("_found", "_reading")

    _found: tuple[BundleFile, SealedFile | Exception] | None
    _reading: threading.Thread

    def start(self, file: BundleFile) -> None:
        try:
            content: SealedFile | Exception = super().seal(file)
        except Exception as error:  # raised where the file is asked for
            content = error
        object.__setattr__(self, "_found", (file, content))

    def seal(self, file: BundleFile) -> SealedFile:
        self._reading.join()
        if self._found is None or self._found[0] is not file:
            return super().seal(file)
        content = self._found[1]
        object.__setattr__(self, "_found", None)
        if isinstance(content, Exception):
            raise content
        return content
