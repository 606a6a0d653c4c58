"""The bundle: one directory that carries a verified classifier.

No runtime sees a byte before its file's path is proven to lie inside the bundle, to be a plain file without links, and
to have the SHA-256 that the manifest states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdeploy.bundle.answers import Answered, Calibration, Rejection
from samdeploy.bundle.manifest import BundleFile, DataRecord
from samdeploy.bundle.measured import Measured
from samdeploy.bundle.spec import ModelSpec
from samdeploy.errors import BundleError
from samdeploy.files import SealedFile, contained_file

if TYPE_CHECKING:
    from numpy import dtype
    from numpy.typing import NDArray

    from samdeploy.arrays import Float32Array, UInt8Array


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened manifest; files are read, and verified, one by one."""

    root: Path
    spec: ModelSpec
    files: tuple[BundleFile, ...]
    data: DataRecord
    provenance: Mapping[str, str]
    measured: Measured | None = None
    calibration: Calibration | None = None
    rejection: Rejection | None = None
    answered: Answered | None = None

    @property
    def is_imported(self) -> bool:
        """Whether the network was trained elsewhere."""
        return self.provenance.get("run_status") == "imported"

    @property
    def temperature(self) -> float:
        """What logits are divided by before the softmax; 1 where none was fitted."""
        return self.calibration.temperature if self.calibration else 1.0

    @property
    def threshold(self) -> float:
        """An answer of a lower probability is rejected; 0 where none is."""
        return self.rejection.threshold if self.rejection else 0.0

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
        import hashlib

        path = contained_file(self.root, file.path, f"bundle {self.root}")
        self._check_length(file, path.stat().st_size)
        data = path.read_bytes()
        self._check_digest(file, hashlib.sha256(data).hexdigest())
        return data

    def seal(self, file: BundleFile) -> SealedFile:
        """What `read` gives, as a file in memory that has a path; runtimes read graphs faster from a path.

        A graph may name further files of weights.  Runtimes look for them beside it, or in the working directory if the
        graph has no path, where nobody has checked them.  Beside this file there are none.

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
                "the file was truncated or replaced; copy or export the bundle again"
            )

    def _check_digest(self, file: BundleFile, found: str) -> None:
        if found != file.sha256:
            raise BundleError(
                f"bundle {self.root}: {file.path!r} has SHA-256 {found[:12]}..., the manifest states "
                f"{file.sha256[:12]}...; the file was changed; copy or export the bundle again"
            )

    def verify(self) -> None:
        """Read every file once.

        Raises:
            BundleError: on the first that is missing, changed or unsafe.
        """
        for file in self.files:
            self.read(file)

    def golden(self) -> tuple[UInt8Array, Float32Array]:
        """The images and answers a bundle tests itself with: uint8 [n, H, W, 3] RGB and float32 [n, K].

        Raises:
            BundleError: they are missing, damaged, or do not fit the model.
        """
        from samdeploy.bundle.golden import read_golden  # late, as it needs numpy

        return read_golden(self)

    def array(self, role: str, dtype: dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """The .npy file with `role`: `dtype` [n, *shape], the caller's own.

        Raises:
            BundleError: it is missing, damaged, or of another type or shape.
        """
        from samdeploy.bundle.golden import read_array  # late, as it needs numpy

        return read_array(self, role, dtype, shape)
