"""What every runtime promises (`Session`, `Backend`), and the checks that are written once for all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import numpy as np

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.backends.channels import channel_twins, order_read
from samdeploy.backends.difference import difference_shares, picture_ranges
from samdeploy.backends.lifetime import Lifetime
from samdeploy.bundle.spec import ModelSpec, TensorSpec
from samdeploy.errors import BackendUnavailable, BundleError, InputError

if TYPE_CHECKING:
    from samdeploy.backends.read_ahead import ReadAhead
    from samdeploy.bundle import Bundle
    from samdeploy.bundle.manifest import BundleFile
    from samdeploy.files import SealedFile


# Largest allowed difference from the golden logits, as a share of their range (`picture_ranges`).
# fp32: another order of summation over a hundred layers moves logits by about 1e-6 of their range (up to 5e-6 over
#   10,000 pictures of a network without squashing), a wrong weight, layout or normalisation by far more than 1e-2;
#   1e-4 keeps both apart.
# fp16: 11 significant bits; trained networks showed 4e-4 to 2e-3 of the range, an untrained SAM-ResNet-50, whose
#   activations nearly cancel, 2.5e-2.
# bf16: 8 significant bits, eight times coarser than fp16; about 1 % is usual.
# int8: 256 levels per tensor; a few per cent are usual, and what it costs in accuracy is for `eval` to say.
GOLDEN_TOLERANCE = {"fp32": 1e-4, "fp16": 5e-2, "bf16": 1e-1, "int8": 2e-1}


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
        ahead: a file of the bundle that is being read already.
    """

    bundle: Bundle
    device: str
    precision: str
    ahead: ReadAhead | None = None

    def seal(self, file: BundleFile) -> SealedFile:
        """`Bundle.seal`, or what was read ahead."""
        ahead = self.ahead.take(file) if self.ahead is not None else None
        return ahead or self.bundle.seal(file)


class CheckedSession:
    """A `Session` whose input is checked before the runtime sees it.  Also a context manager that closes.

    Threads may share it, and one of them may close it: calls that are under way end as ever, later ones are refused.
    A process that inherits it by a fork may not use it.
    """

    def __init__(self, session: Session, spec: ModelSpec) -> None:
        self.backend = session.backend
        self.device = session.device
        self.precision = session.precision
        self._session = session
        self._shape = tuple(spec.input.shape[1:])
        self._lifetime = Lifetime(f"this {session.backend} session", "Classifier.open()", session.close)

    def run(self, batch: UInt8Array) -> Float32Array:
        """Logits float32 [N, K], owned by the caller, of a batch uint8 [N, H, W, 3], RGB, N >= 1.

        Raises:
            InputError: wrong kind, dtype, rank, shape or an empty batch; the session is closed, or was opened in the
                process that this one was forked from.
            BackendUnavailable: the runtime failed, for example for want of memory.
        """
        height, width, channels = self._shape
        expected = f"a numpy array uint8 [N, {height}, {width}, {channels}] with N >= 1 is expected"
        if not isinstance(batch, np.ndarray):
            raise InputError(f"batch: {type(batch).__name__} found, {expected}")
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != self._shape or len(batch) < 1:
            raise InputError(f"batch: {batch.dtype} {list(batch.shape)} found, {expected}")
        with self._lifetime:
            return self._session.run(np.ascontiguousarray(batch))

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


def check_golden(session: Session, images: UInt8Array, logits: Float32Array) -> float:
    """Run the bundle's golden images and compare with the logits of the trained model.

    Args:
        images: uint8 [n, H, W, 3].
        logits: float32 [n, K], of the model as trained, in float32.

    Returns:
        The largest difference, as a share of its picture's `picture_ranges`.

    Raises:
        BundleError: an answer is not finite or too far off, or channels are exchanged: not the model of this bundle.
    """
    found = session.run(images)
    engine = f"{session.backend} engine ({session.precision}, {session.device})"
    cure = "do not use it; make the bundle again with `samdeploy export`"
    if found.shape != logits.shape:
        raise BundleError(f"{engine}: golden logits {list(logits.shape)} expected, {list(found.shape)} found; {cure}")
    if not np.isfinite(found).all():
        bad = int((~np.isfinite(found)).sum())
        raise BundleError(f"{engine}: {bad} of {found.size} golden logits are not finite numbers; {cure}")
    order = order_read(found, logits, picture_ranges(logits), channel_twins(images))
    if order:
        raise BundleError(f"{engine}: the golden images show that it reads channels as {order}, not RGB; {cure}")
    error = golden_error(found, logits, session.precision)
    allowed = GOLDEN_TOLERANCE[session.precision]
    if error > allowed:
        raise BundleError(
            f"{engine}: the golden images give logits that differ by {error:.2e} of their range, at most {allowed:.0e} "
            f"is allowed: this is not the model of this bundle; {cure}"
        )
    return error


def golden_error(found: Float32Array, logits: Float32Array, precision: str) -> float:
    """The largest difference that counts, as a share of its image's range; infinite where an answer is missing.

    Args:
        found: what an engine of `precision` answers to the golden images.
        logits: float32 [n, K], the golden answers.
    """
    if found.shape != logits.shape:
        return float("inf")
    worst = np.sort(difference_shares(found, logits, picture_ranges(logits)))
    return float(worst[-1 - golden_outliers(precision, len(worst))])


def golden_outliers(precision: str, n_images: int) -> int:
    """How many golden pictures may be answered otherwise.

    Without squashing, single pictures explode (logits of 1e9 were seen); int8 ranges leave them out on purpose.
    """
    return n_images // 4 if precision == "int8" else 0


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
        f"make one: samdeploy export --precision {precision}"
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
        more: outputs that are expected after the logits.

    Raises:
        BundleError: another name, dtype, rank or fixed size.
    """

    def plain(tensor: TensorSpec) -> str:
        return f"{tensor.name} {tensor.dtype} {['N' if isinstance(n, str) else n for n in tensor.shape]}"

    have = [plain(tensor).replace("'", "") for tensor in found]
    want = [plain(tensor).replace("'", "") for tensor in (spec.input, spec.output, *more)]
    if have != want:
        raise BundleError(
            f"{what}: tensors {'; '.join(have) or 'none'} found, {'; '.join(want)} expected by the manifest; "
            "engine and manifest do not belong together"
        )
