"""What every runtime promises (`Session`, `Backend`), and the checks that are written once for all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.backends.lifetime import Lifetime
from samdeploy.bundle.spec import CAM_AXES, ModelSpec, TensorSpec
from samdeploy.errors import BackendUnavailable, BundleError, InputError

if TYPE_CHECKING:
    from samdeploy.backends.read_ahead import ReadAhead
    from samdeploy.bundle import Bundle
    from samdeploy.bundle.manifest import BundleFile
    from samdeploy.files import SealedFile


class Session(Protocol):
    """One engine, opened by one runtime on one device.  A backend author writes `run` and `close`.

    `run` may be called from several threads at once: a runtime that cannot do that locks inside.

    Attributes:
        backend: name in `BACKENDS`.
        device: "cpu" or "cuda", where the engine really runs.
        precision: of the arithmetic, one of `samdeploy.bundle.spec.PRECISIONS`.
    """

    backend: str
    device: str
    precision: str

    def run(self, batch: UInt8Array) -> Float32Array:
        """Logits of a batch.

        Args:
            batch: uint8 [N, H, W, 3], RGB, C-contiguous, N >= 1; it is not changed.

        Returns:
            float32 [N, K] in host memory, owned by the caller: no later call writes to it.
        """
        ...

    def close(self) -> None:
        """Release the engine's memory; calling it again does nothing."""
        ...


class MapSession(Session, Protocol):
    """A session that was opened with `Wanted.maps`."""

    def run_with_maps(self, batch: UInt8Array) -> tuple[Float32Array, Float32Array]:
        """Logits as `run` gives them, and class activation maps.

        Returns:
            float32 [N, K] and float32 [N, K, h, w], in host memory, owned by the caller.  The mean of a map plus the
            class's bias is the class's logit.
        """
        ...


class Backend(Protocol):
    """What the module of a runtime offers; it is imported only when that runtime is asked for."""

    def unavailable(self) -> str | None:
        """Why this runtime cannot run on this machine, with the cure; None where it can."""
        ...

    def load(self, wanted: Wanted) -> Session:
        """Open an engine of a bundle."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """The engine that a backend is asked to open.

    Attributes:
        device, precision: passed `check_supported`; the device may be "auto".
        maps: a `MapSession` is wanted, on the graph of class activation maps.
        ahead: a file of the bundle that is being read already.
    """

    bundle: Bundle
    device: str
    precision: str
    maps: bool = False
    ahead: ReadAhead | None = None

    def seal_graph(self, backend: str, precision: str) -> SealedFile:
        """The graph of maps, or else the one in `precision`.

        Raises:
            BackendUnavailable: the bundle has none.
            BundleError: it was changed.
        """
        bundle = self.bundle
        return self.seal(cam_file(bundle, backend) if self.maps else pick_file(bundle, "graph", backend, precision))

    def seal(self, file: BundleFile) -> SealedFile:
        """`Bundle.seal`, or what was read ahead."""
        ahead = self.ahead.take(file) if self.ahead is not None else None
        return ahead or self.bundle.seal(file)


class CheckedSession:
    """A `Session` whose input is checked before the runtime sees it.  Also a context manager that closes.

    Threads may share it, and one of them may close it: calls that are under way end as ever, later ones are refused.
    A process that inherits it by a fork may not use it.
    """

    def __init__(self, session: Session, spec: ModelSpec, *, has_maps: bool = False) -> None:
        """`has_maps`: the session is a `MapSession`."""
        self.backend = session.backend
        self.device = session.device
        self.precision = session.precision
        self._session = session
        self._has_maps = has_maps
        self._shape = tuple(spec.input.shape[1:])
        self._lifetime = Lifetime(f"this {session.backend} session", "Classifier.open()", session.close)

    def run(self, batch: UInt8Array) -> Float32Array:
        """Logits float32 [N, K], owned by the caller, of a batch uint8 [N, H, W, 3], RGB, N >= 1.

        Raises:
            InputError: wrong kind, dtype, rank, shape or an empty batch; the session is closed, or was opened in the
                process that this one was forked from.
            BackendUnavailable: the runtime failed, for example for want of memory.
        """
        usable = self._checked(batch)
        with self._lifetime:
            return self._session.run(usable)

    def run_with_maps(self, batch: UInt8Array) -> tuple[Float32Array, Float32Array]:
        """Logits float32 [N, K] and class activation maps float32 [N, K, h, w], owned by the caller; see `MapSession`.

        Raises:
            InputError: as `run` does, or the session was opened without maps.
            BackendUnavailable: the runtime failed, for example for want of memory.
        """
        if not self._has_maps:
            raise InputError(f"this {self.backend} session has no class activation maps; open_session(..., maps=True)")
        usable = self._checked(batch)
        with self._lifetime:
            return cast(MapSession, self._session).run_with_maps(usable)

    def _checked(self, batch: UInt8Array) -> UInt8Array:
        """The batch, C-contiguous."""
        height, width, channels = self._shape
        expected = f"a numpy array uint8 [N, {height}, {width}, {channels}] with N >= 1 is expected"
        if not isinstance(batch, np.ndarray):
            raise InputError(f"batch: {type(batch).__name__} found, {expected}")
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != self._shape or len(batch) < 1:
            raise InputError(f"batch: {batch.dtype} {list(batch.shape)} found, {expected}")
        return np.ascontiguousarray(batch)

    def check_usable(self) -> None:
        """Raise what `run` would raise before it looks at a batch.

        Raises:
            InputError: the session is closed, or was opened in the process that this one was forked from.
        """
        with self._lifetime:
            pass

    def run_async(self, images: object, logits: object, stream: object = None) -> None:
        """Queue a batch that is on the GPU already: see `DeviceSession.run_async`.

        Raises:
            InputError: the arrays or the stream are wrong; the session is closed, or runs in host memory.
            BackendUnavailable: the runtime failed, for example for want of memory.
        """
        with self._lifetime:
            run_async = getattr(self._session, "run_async", None)
            if run_async is None:
                raise InputError(
                    f"this {self.backend} session runs on {self.device} and takes host arrays: use run(); run_async() "
                    "is for tensorrt, and onnxruntime with device 'cuda'"
                )
            run_async(images, logits, stream)

    @property
    def has_device_clock(self) -> bool:
        """Whether `device_ms` can be asked."""
        return hasattr(self._session, "device_ms")

    def device_ms(self, batch: UInt8Array) -> float:
        """Milliseconds that the GPU works on a batch, without copies: see `DeviceSession.device_ms`.

        Raises:
            InputError: the session runs in host memory or is closed, or the batch is outside its profile.
        """
        if not hasattr(self._session, "device_ms"):
            raise InputError(f"device_ms: this {self.backend} session takes host arrays only")
        with self._lifetime:
            return float(self._session.device_ms(batch))

    @property
    def cuda_graph(self) -> bool:
        """Whether runs are recorded and replayed as CUDA graphs; may be switched where the session runs on CUDA."""
        return bool(getattr(self._session, "cuda_graph", False))

    @cuda_graph.setter
    def cuda_graph(self, wanted: bool) -> None:
        if not hasattr(self._session, "cuda_graph"):
            raise InputError(f"cuda_graph: this {self.backend} session has none")
        with self._lifetime:
            self._session.cuda_graph = wanted

    @property
    def cuda_graph_state(self) -> str:
        """ "on", "off", or "off since a batch of N: why"; "" where the session has no CUDA graphs."""
        if not hasattr(self._session, "cuda_graph"):
            return ""
        return "on" if self.cuda_graph else str(getattr(self._session, "cuda_graph_note", "")) or "off"

    def close(self) -> None:
        """Release the engine's memory, once the calls under way have ended; calling it again does nothing."""
        self._lifetime.close()

    def __enter__(self) -> CheckedSession:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def pick_file(bundle: Bundle, role: str, backend: str, precision: str) -> BundleFile:
    """The bundle's file for a runtime: one made for it, else one made for all.

    Raises:
        BackendUnavailable: there is none of this precision; the text lists those that are there.
    """
    fitting = bundle.find(role, backend=backend, precision=precision)
    if fitting is not None:
        return fitting
    found = ", ".join(sorted({str(file.precision) for file in bundle.select(role, backend=backend)})) or "none"
    raise BackendUnavailable(
        f"the bundle holds no {role} in {precision} that {backend} can run (found: {found}); "
        f"make one: samdeploy export RUN --precision {precision}"
    )


def cam_file(bundle: Bundle, backend: str) -> BundleFile:
    """The bundle's graph of class activation maps.

    Raises:
        BackendUnavailable: there is none.
    """
    file = bundle.find("cam_graph", backend=backend)
    if file is None:
        raise BackendUnavailable(
            f"bundle {bundle.root}: holds no graph of class activation maps (role 'cam_graph'); make the bundle again "
            "without --no-cam: samdeploy export RUN; or use backend pytorch, which computes them from the weights"
        )
    return file


def check_tensors(what: str, found: Iterable[TensorSpec], spec: ModelSpec, *more: TensorSpec) -> None:
    """Compare an engine's inputs and outputs with the manifest's.

    Args:
        what: how to name the engine in the error.
        found: inputs, then outputs, as the runtime reports them; a dynamic axis is any `str`.
        more: outputs that are expected after the logits; an axis of `CAM_AXES` may have any size.

    Raises:
        BundleError: another name, dtype, rank or fixed size.
    """
    have, want = list(found), [spec.input, spec.output, *more]
    if len(have) != len(want) or not all(map(_is_as_expected, have, want)):
        texts = ("; ".join(map(_plain, tensors)) or "none" for tensors in (have, want))
        raise BundleError(
            f"{what}: tensors {next(texts)} found, {next(texts)} expected by the manifest; "
            "engine and manifest do not belong together"
        )


def _is_as_expected(found: TensorSpec, expected: TensorSpec) -> bool:
    if len(found.shape) != len(expected.shape):
        return False
    axes = [have if want in CAM_AXES else want for have, want in zip(found.shape, expected.shape, strict=True)]
    return _plain(found) == _plain(replace(expected, shape=tuple(axes)))


def _plain(tensor: TensorSpec) -> str:
    axes = (str(axis) if isinstance(axis, int) or axis in CAM_AXES else "N" for axis in tensor.shape)
    return f"{tensor.name} {tensor.dtype} [{', '.join(axes)}]"
