"""Writing a bundle: everything into a folder beside it, then one swap, so that no one ever sees half a bundle."""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samdeploy.bundle import Bundle
from samdeploy.files import write_atomic
from samdeploy.manifest import MANIFEST, BundleFile, DataRecord, Manifest, manifest_bytes
from samdeploy.spec import ModelSpec


class BundleWriter:
    """A bundle under construction in `root`; `bundle()` opens what is there so far."""

    def __init__(self, root: Path, spec: ModelSpec, data: DataRecord, provenance: Mapping[str, str]) -> None:
        self.root = root
        self._spec, self._data, self._provenance = spec, data, dict(provenance)
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
        return Bundle(self.root, self._spec, tuple(self._files), self._data, self._provenance)

    def write_manifest(self) -> None:
        """Write manifest.json; the last step."""
        manifest = Manifest(self._spec, tuple(self._files), self._data, self._provenance)
        write_atomic(self.root / MANIFEST, manifest_bytes(manifest))


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place when the block ends well, and vanishes otherwise."""
    stage = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    old = stage.with_name(f"{stage.name}-old")
    try:
        yield stage
        stage.chmod(0o755)  # mkdtemp's 0700 would lock out everyone the bundle is given to
        if target.exists():
            target.rename(old)
        stage.rename(target)
    finally:
        # Interrupted between the two renames: what was there goes back to its place.
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(stage, ignore_errors=True)
