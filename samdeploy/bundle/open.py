"""Opening a bundle: its manifest, and where its files lie."""

from __future__ import annotations

from pathlib import Path

from samdeploy.bundle.bundle import Bundle
from samdeploy.bundle.manifest import MOST_BYTES, manifest_from_json
from samdeploy.bundle.names import MANIFEST
from samdeploy.errors import BundleError
from samdeploy.files import contained_file, read_json


def open_bundle(path: str | Path) -> Bundle:
    """Read and check a bundle's manifest; the other files are checked as they are read.

    Raises:
        BundleError: no bundle, damaged, of a newer version, or unsafe: a path that leaves the folder, a link.
    """
    if not str(path) or "\0" in str(path):
        raise BundleError(f"bundle {str(path)!r}: is no path; name the bundle's folder")
    root = Path(path)
    if not (root / MANIFEST).exists():
        from samdeploy.bundle.path_kind import not_a_bundle

        raise BundleError(f"bundle {root}: {not_a_bundle(path)}")
    manifest = contained_file(root, MANIFEST, f"bundle {root}")
    found = manifest_from_json(read_json(manifest, f"bundle {root}", max_bytes=MOST_BYTES), str(manifest))
    for file in found.files:
        contained_file(root, file.path, f"bundle {root}")
    return Bundle(
        root, found.spec, found.files, found.data, found.provenance, found.measured, found.calibration, found.rejection,
        found.answered,
    )  # fmt: skip
