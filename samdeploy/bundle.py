"""The bundle: one directory that carries a verified classifier.

Reading needs numpy alone.  No runtime sees a byte before its file's path is proven to lie inside the bundle, to be a
plain file without links, and to have the SHA-256 that the manifest states.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.errors import BundleError, InputError
from samdeploy.files import SealedFile, contained_file, read_json
from samdeploy.manifest import MANIFEST, MOST_BYTES, BundleFile, DataRecord, manifest_from_json
from samdeploy.run import BUNDLE_FOLDER, RUN_FILE, WEIGHTS_FILE, open_run
from samdeploy.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened manifest; files are read, and verified, one by one."""

    root: Path
    spec: ModelSpec
    files: tuple[BundleFile, ...]
    data: DataRecord
    provenance: Mapping[str, str]

    def select(self, role: str, *, backend: str | None = None, precision: str | None = None) -> tuple[BundleFile, ...]:
        """Files of `role` that `backend` may open, in `precision`; files made for that backend first."""
        found = [
            file
            for file in self.files
            if file.role == role
            and (backend is None or file.backend in (None, backend))
            and (precision is None or file.precision == precision)
        ]
        return tuple(sorted(found, key=lambda file: file.backend is None))

    def find(self, role: str, *, backend: str | None = None, precision: str | None = None) -> BundleFile | None:
        """The first file of `select`, or None."""
        return next(iter(self.select(role, backend=backend, precision=precision)), None)

    def read(self, file: BundleFile) -> bytes:
        """The content of `file`, after containment, length and SHA-256 were checked.

        Raises:
            BundleError: one of them is wrong.
        """
        path = contained_file(self.root, file.path, f"bundle {self.root}")
        self._check_length(file, path.stat().st_size)
        data = path.read_bytes()
        self._check_digest(file, hashlib.sha256(data).hexdigest())
        return data

    def seal(self, file: BundleFile) -> SealedFile:
        """What `read` gives, as a file in memory that has a path: for runtimes, which read graphs faster from one.

        They also take the weights that such a graph may ask for in further files: of a graph without a path from the
        working directory, which nobody has checked; beside this one there are none.

        Raises:
            BundleError: as `read` does.
        """
        path = contained_file(self.root, file.path, f"bundle {self.root}")
        self._check_length(file, path.stat().st_size)
        sealed = SealedFile.copy_of(path)
        try:
            self._check_length(file, sealed.bytes)
            self._check_digest(file, sealed.sha256())
        except BaseException:
            sealed.close()
            raise
        return sealed

    def _check_length(self, file: BundleFile, found: int) -> None:
        if found != file.bytes:
            raise BundleError(
                f"bundle {self.root}: {file.path!r} has {found} bytes, the manifest states {file.bytes}; "
                "the file was truncated or replaced, export it again"
            )

    def _check_digest(self, file: BundleFile, found: str) -> None:
        if found != file.sha256:
            raise BundleError(
                f"bundle {self.root}: {file.path!r} has SHA-256 {found[:12]}..., the manifest states "
                f"{file.sha256[:12]}...; the file was changed, export it again"
            )

    def verify(self) -> None:
        """Read every file once.

        Raises:
            BundleError: on the first that is missing, changed or unsafe.
        """
        for file in self.files:
            self.read(file)

    def golden(self) -> tuple[UInt8Array, Float32Array]:
        """The pictures and answers a bundle tests itself with: uint8 [n, H, W, 3] RGB and float32 [n, K].

        Raises:
            BundleError: they are missing, damaged, or do not fit the model.
        """
        height, width = self.spec.preprocessing.height, self.spec.preprocessing.width
        images = self._array("golden_images", np.dtype(np.uint8), (height, width, 3))
        logits = self._array("golden_logits", np.dtype(np.float32), (len(self.spec.classes),))
        if len(images) != len(logits) or not len(images):
            raise BundleError(f"bundle {self.root}: {len(images)} golden images, {len(logits)} golden answers found")
        if not np.isfinite(logits).all():
            raise BundleError(f"bundle {self.root}: golden answers are not finite; export it again")
        return images, logits

    def _array(self, role: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        file = self.find(role)
        if file is None:
            raise BundleError(f"bundle {self.root}: no file with role {role!r}; export it again")
        name = f"bundle {self.root}: {file.path!r}"
        data = io.BytesIO(self.read(file))
        try:
            found_shape, is_fortran, found_dtype = _npy_header(data)
        except Exception as error:  # numpy's parser fails in many ways on a header that is no header
            raise BundleError(f"{name} is no .npy array ({error})") from None
        # Everything is compared before numpy reserves memory for what the header promises.
        if found_dtype != dtype or found_shape[1:] != shape or len(found_shape) != len(shape) + 1 or is_fortran:
            order = " in Fortran order" if is_fortran else ""
            wanted = f"{dtype} [n, {', '.join(map(str, shape))}]"
            raise BundleError(f"{name} is {found_dtype} {list(found_shape)}{order}, expected {wanted}")
        content = data.read()
        expected = math.prod(found_shape) * dtype.itemsize
        if len(content) != expected:
            raise BundleError(f"{name} has {len(content)} bytes of numbers, its shape asks for {expected}")
        return np.frombuffer(content, dtype).reshape(found_shape).copy()


def _npy_header(data: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(data)
    if version != (1, 0):  # the later ones are for names of fields, which our arrays have not
        raise ValueError(f"version {version[0]}.{version[1]} of the format found, 1.0 expected")
    return np.lib.format.read_array_header_1_0(data)


def open_bundle(path: str | Path) -> Bundle:
    """Read and check a bundle's manifest; the other files are checked as they are read.

    Raises:
        BundleError: no bundle, damaged, of a newer version, or unsafe: a path that leaves the folder, a link.
    """
    if not str(path) or "\0" in str(path):
        raise BundleError(f"bundle {str(path)!r}: is no path; name the bundle's folder")
    root = Path(path)
    if root.is_file():
        raise BundleError(f"bundle {root}: is a file; name the bundle's folder")
    if not root.is_dir():
        raise BundleError(f"bundle {root}: no such folder; make one: samdeploy export")
    if not (root / MANIFEST).exists() and (root / BUNDLE_FOLDER / MANIFEST).exists():
        raise BundleError(f"bundle {root}: is a run; its bundle is {root / BUNDLE_FOLDER}")
    if not (root / MANIFEST).exists() and (root / RUN_FILE).exists():
        raise BundleError(f"bundle {root}: is a run that has no bundle yet; make it: samdeploy export {root}")
    manifest = contained_file(root, MANIFEST, f"bundle {root}")
    found = manifest_from_json(read_json(manifest, f"bundle {root}", max_bytes=MOST_BYTES), str(manifest))
    for file in found.files:
        contained_file(root, file.path, f"bundle {root}")
    return Bundle(root, found.spec, found.files, found.data, found.provenance)


def bundle_of(path: Path) -> Path:
    """The bundle that someone means who names `path`: the run's, where `path` is a run that has one; else `path`."""
    bundle = path / BUNDLE_FOLDER
    return bundle if not (path / MANIFEST).exists() and (bundle / MANIFEST).exists() else path


def unlike_its_run(bundle: Bundle) -> str:
    """How a bundle departs from the run around it, with the cure; "" if it does not, or if there is no run.

    The run was trained on since, or the manifest names other classes or another preprocessing than were trained: no
    hash tells of that, as the manifest holds the hashes itself.
    """
    root = bundle.root if bundle.root.name not in ("", "..") else bundle.root.resolve()
    run, file = root.parent, bundle.find("weights")
    if file is None or root.name != BUNDLE_FOLDER or not (run / RUN_FILE).is_file():
        return ""
    try:
        with (run / WEIGHTS_FILE).open("rb") as weights:
            digest = hashlib.file_digest(weights, "sha256").hexdigest()
    except OSError:
        return ""
    if digest != file.sha256:
        return f"the run {run} holds other weights than this bundle, which was exported before; samdeploy export {run}"
    try:
        record = open_run(run)
    except BundleError:  # of another version, or damaged: its own commands say so
        return ""
    spec = bundle.spec
    here = {"classes": spec.classes, "preprocessing": spec.preprocessing, "arch": spec.arch, "gate": spec.gate}
    changed = [name for name, value in here.items() if getattr(record, name) != value]
    if not changed:
        return ""
    what = " and ".join(changed)
    if changed[0] == "classes" and len(spec.classes) == len(record.classes):
        pairs = zip(spec.classes, record.classes, strict=True)
        index, (found, expected) = next((index, pair) for index, pair in enumerate(pairs) if pair[0] != pair[1])
        what += f" (class {index} is {found!r}, {expected!r} was trained)"
    return f"its manifest was changed: other {what} than in the run {run}; samdeploy export {run}"


def latest_bundle(runs_root: Path) -> Path:
    """The newest bundle of all runs below `runs_root`.

    Raises:
        InputError: there is none.
    """
    found = [path.parent for path in runs_root.glob(f"*/{BUNDLE_FOLDER}/{MANIFEST}")]
    if not found:
        raise InputError(f"no bundle below {runs_root}/; make one first: samdeploy export")
    return max(found, key=lambda path: ((path / MANIFEST).stat().st_mtime_ns, path.parent.name))
