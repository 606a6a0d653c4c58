"""Writing a bundle's files, each with its entry in the manifest."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samdeploy.bundle import Bundle
from samdeploy.bundle.answers import Answered, Calibration, Rejection
from samdeploy.bundle.manifest import BundleFile, DataRecord, Manifest, manifest_bytes
from samdeploy.bundle.measured import Measured
from samdeploy.bundle.names import MANIFEST
from samdeploy.bundle.spec import ModelSpec
from samdeploy.files import write_atomic


class BundleWriter:
    """A bundle under construction in `root`; `bundle()` opens what is there so far."""

    def __init__(
        self,
        root: Path,
        spec: ModelSpec,
        data: DataRecord,
        provenance: Mapping[str, str],
        measured: Measured | None = None,
        calibration: Calibration | None = None,
        rejection: Rejection | None = None,
        answered: Answered | None = None,
    ) -> None:
        self.root = root
        self._spec, self._data, self._provenance, self._measured = spec, data, dict(provenance), measured
        self._answers = calibration, rejection, answered
        self._files: list[BundleFile] = []

    def add(
        self,
        role: str,
        path: str,
        content: bytes,
        *,
        backend: str | None = None,
        precision: str | None = None,
        built_for: Mapping[str, str] | None = None,
    ) -> BundleFile:
        """Write one file and enter it into the manifest."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, content)
        digest = hashlib.sha256(content).hexdigest()
        file = BundleFile(role, path, digest, len(content), backend, precision, built_for or {})
        self._files.append(file)
        return file

    def add_array(self, role: str, path: str, array: NDArray[np.generic]) -> BundleFile:
        """Write an array as .npy, which numpy alone reads, and any language with little code."""
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
        return self.add(role, path, buffer.getvalue())

    def bundle(self) -> Bundle:
        """What has been added so far, as the rest of samdeploy sees a bundle."""
        files = tuple(self._files)
        return Bundle(self.root, self._spec, files, self._data, self._provenance, self._measured, *self._answers)

    def write_manifest(self) -> None:
        """Write manifest.json; the last step."""
        files = tuple(self._files)
        manifest = Manifest(self._spec, files, self._data, self._provenance, self._measured, *self._answers)
        write_atomic(self.root / MANIFEST, manifest_bytes(manifest))
