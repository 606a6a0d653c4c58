"""Opening a bundle: its manifest, and where its files lie."""

from __future__ import annotations

from pathlib import Path

from samdeploy.bundle.bundle import Bundle
from samdeploy.bundle.manifest import MOST_BYTES, manifest_from_json
from samdeploy.bundle.names import MANIFEST
from samdeploy.errors import BundleError
from samdeploy.files import contained_file, read_json


def open_bundle(path: str | Path, *, trust: str | Path | None = None) -> Bundle:
    """Read and check a bundle's manifest; the other files are checked as they are read.

    Args:
        path: the bundle's folder.
        trust: a public key in PEM, see `samdeploy.bundle.signature`: the folder must be as its owner signed it, file
            by file.  All of them are read once.

    Raises:
        BundleError: no bundle, damaged, of a newer version, or unsafe: a path that leaves the folder, a link; or,
            with `trust`, not signed by that key, or changed since.
        InputError: `trust` is no public key.
    """
    if not str(path) or "\0" in str(path):
        raise BundleError(f"bundle {str(path)!r}: is no path; name the bundle's folder")
    root = Path(path)
    if not (root / MANIFEST).exists():
        from samdeploy.bundle.path_kind import not_a_bundle

        raise BundleError(f"bundle {root}: {not_a_bundle(path)}")
    signed = None
    if trust is not None:
        from samdeploy.bundle.signature import signed_files  # late: it needs cryptography

        signed = signed_files(root, Path(trust))
    manifest = contained_file(root, MANIFEST, f"bundle {root}")
    # The very bytes that are parsed are compared: another manifest may lie there by now.
    sha256 = signed[MANIFEST] if signed is not None else None
    values = read_json(manifest, f"bundle {root}", max_bytes=MOST_BYTES, sha256=sha256)
    found = manifest_from_json(values, str(manifest))
    for file in found.files:
        contained_file(root, file.path, f"bundle {root}")
        if signed is not None and signed.get(file.path) != file.sha256:
            raise BundleError(f"bundle {root}: {file.path!r} is not the file that was signed; export and sign again")
    return Bundle(
        root, found.spec, found.files, found.data, found.provenance, found.measured, found.calibration, found.rejection,
        found.answered,
    )  # fmt: skip
