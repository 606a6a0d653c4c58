"""Class activation maps in every runtime: the same map from the trained network and from the engine.

>>> with open_cam_session(bundle, "onnxruntime") as session:
...     logits, maps = session.run(batch)  # uint8 [N, H, W, 3] -> float32 [N, K] and float32 [N, K, h, w]
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.backends.difference import difference_shares, picture_ranges
from samdeploy.backends.lifetime import Lifetime
from samdeploy.backends.names import check_names, check_supported
from samdeploy.backends.registry import load_module
from samdeploy.backends.session import GOLDEN_TOLERANCE, check_golden
from samdeploy.bundle.spec import ModelSpec
from samdeploy.errors import BundleError, InputError

if TYPE_CHECKING:
    from samdeploy.backends import pytorch
    from samdeploy.backends.onnxruntime import session as onnxruntime
    from samdeploy.backends.openvino import session as openvino
    from samdeploy.bundle import Bundle

    # Lets mypy prove that each module keeps the promise of `CamBackend`.
    _pytorch: CamBackend = pytorch
    _onnxruntime: CamBackend = onnxruntime
    _openvino: CamBackend = openvino


class CamSession(Protocol):
    """One network with its class activation maps, opened by one runtime on one device.

    `backend`, `device` and `precision` are those of `Session`; threads may share it.
    """

    backend: str
    device: str
    precision: str

    def run(self, batch: UInt8Array) -> tuple[Float32Array, Float32Array]:
        """Logits and maps of a batch.

        Args:
            batch: uint8 [N, H, W, 3], RGB, C-contiguous, N >= 1; it is not changed.

        Returns:
            logits float32 [N, K] and maps float32 [N, K, h, w], in host memory, owned by the caller.  The mean of a
            map plus the class's bias is the class's logit.
        """
        ...

    def close(self) -> None:
        """Release the memory; calling it again does nothing."""
        ...


class CamBackend(Protocol):
    """What the module of a runtime offers for maps."""

    def load_cam(self, bundle: Bundle, device: str, precision: str) -> CamSession:
        """Open the bundle's maps; `device` and `precision` are valid, `device` may be "auto"."""
        ...


def open_cam_session(
    bundle: Bundle,
    backend: str = "onnxruntime",
    device: str = "auto",
    precision: str = "fp32",
    *,
    check: bool = True,
) -> CheckedCamSession:
    """Open a bundle's class activation maps and prove them on the bundle's golden images.

    Args:
        bundle: from `open_bundle`.
        backend: "onnxruntime", "openvino", or "pytorch", which computes them from the network as trained.
        device: "cpu", "cuda" or "auto".
        precision: "fp32", with openvino also "bf16" and "fp16" where the processor computes in them.
        check: False leaves the golden images to the caller.

    Raises:
        InputError: an unknown backend, device or precision, or one that this backend never has.
        BackendUnavailable: no maps in TensorRT; package, device or the bundle's graph of maps is missing.
        BundleError: a file was changed, the logits are not the model's, or the maps do not add up to them.
    """
    check_names(backend, device, precision)
    check_supported(backend, device, precision, maps=True)
    module = cast(CamBackend, load_module(backend))
    session = CheckedCamSession(module.load_cam(bundle, device, precision), bundle.spec)
    try:
        if check:
            _check(session, *bundle.golden())
    except BaseException:
        session.close()
        raise
    return session


class CheckedCamSession:
    """A `CamSession` whose input is checked before the runtime sees it.  Also a context manager that closes."""

    def __init__(self, session: CamSession, spec: ModelSpec) -> None:
        self.backend = session.backend
        self.device = session.device
        self.precision = session.precision
        self._session = session
        self._shape = tuple(spec.input.shape[1:])
        self._lifetime = Lifetime(f"this {session.backend} session", "open_cam_session()", session.close)

    def run(self, batch: UInt8Array) -> tuple[Float32Array, Float32Array]:
        """Logits float32 [N, K] and maps float32 [N, K, h, w], owned by the caller, of uint8 [N, H, W, 3], RGB.

        Raises:
            InputError: wrong dtype, rank, shape or an empty batch; the session is closed, or was opened before a fork.
            BackendUnavailable: the runtime failed, for example for want of memory.
        """
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != self._shape or len(batch) < 1:
            raise InputError(
                f"batch: {batch.dtype} {list(batch.shape)} found, uint8 [N, {', '.join(map(str, self._shape))}] with "
                "N >= 1 is expected"
            )
        with self._lifetime:
            return self._session.run(np.ascontiguousarray(batch))

    def close(self) -> None:
        """Release the memory, once the calls under way have ended; calling it again does nothing."""
        self._lifetime.close()

    def __enter__(self) -> CheckedCamSession:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class _LogitsOf:
    """A `CamSession` as the `Session` that `check_golden` takes; its answer is kept."""

    def __init__(self, session: CheckedCamSession) -> None:
        self.backend, self.device, self.precision = session.backend, session.device, session.precision
        self._session = session
        self.maps: Float32Array = np.empty((0, 0, 1, 1), np.float32)

    def run(self, batch: UInt8Array) -> Float32Array:
        logits, self.maps = self._session.run(batch)
        return logits

    def close(self) -> None:
        self._session.close()


def _check(session: CheckedCamSession, images: UInt8Array, golden: Float32Array) -> None:
    """The logits are the model's, and the maps add up to them."""
    answers = _LogitsOf(session)
    check_golden(answers, images, golden)
    error = sum_error(answers.maps, golden)
    allowed = sum_tolerance(session.precision)
    if not error <= allowed:
        raise BundleError(
            f"{session.backend} ({session.precision}): the class activation maps of the golden images do not add up to "
            f"the logits: off by {error:.2e} of their range, at most {allowed:.0e} is allowed; make the bundle again "
            "with `samdeploy export`"
        )


def sum_error(maps: Float32Array, golden: Float32Array) -> float:
    """How far the maps are from adding up to the logits, as a share of the logits' range.

    Logit minus mean of the map is one number per class: the bias of the head.  A runtime does not know it; but it is
    the same for every image.

    Args:
        maps: float32 [n, K, h, w], of the golden images.
        golden: float32 [n, K], their logits.
    """
    rest = golden - maps.mean(axis=(2, 3), dtype=np.float64)
    bias = np.broadcast_to(np.median(rest, axis=0), rest.shape)
    return float(difference_shares(rest, bias, picture_ranges(golden)).max())


def sum_tolerance(precision: str) -> float:
    """The largest `sum_error` of a sound engine: a difference of two that may each be off by the tolerance."""
    return 2 * GOLDEN_TOLERANCE[precision]
