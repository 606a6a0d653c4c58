"""Runtimes: one file each, behind one `Session`.  No runtime is imported before it is asked for.

>>> with open_session(bundle, "onnxruntime") as session:
...     logits = session.run(batch)  # uint8 [N, H, W, 3] -> float32 [N, K]
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, cast

from samdeploy.backends.read_ahead import reading_ahead
from samdeploy.bundle.spec import DEVICES, PRECISIONS
from samdeploy.errors import BackendUnavailable, InputError, unknown

if TYPE_CHECKING:
    from samdeploy.backends import pytorch
    from samdeploy.backends.onnxruntime import session as onnxruntime
    from samdeploy.backends.openvino import session as openvino
    from samdeploy.backends.session import Backend, CheckedSession
    from samdeploy.backends.tensorrt import session as tensorrt
    from samdeploy.bundle import Bundle

    # Lets mypy prove that each module keeps the promise of `Backend`.
    _pytorch: Backend = pytorch
    _onnxruntime: Backend = onnxruntime
    _openvino: Backend = openvino
    _tensorrt: Backend = tensorrt

BACKENDS = {
    "pytorch": "samdeploy.backends.pytorch",
    "onnxruntime": "samdeploy.backends.onnxruntime.session",
    "openvino": "samdeploy.backends.openvino.session",
    "tensorrt": "samdeploy.backends.tensorrt.session",
}

# What `precision=None` means; known without importing a runtime.  FP16 is what TensorRT is there for.
DEFAULT_PRECISION = {"pytorch": "fp32", "onnxruntime": "fp32", "openvino": "fp32", "tensorrt": "fp16"}

# What `pip install 'samdeploy[...]'` must name to get the runtime.
_EXTRA = {"pytorch": "train", "onnxruntime": "onnxruntime", "openvino": "openvino", "tensorrt": "tensorrt"}


def open_session(
    bundle: Bundle,
    backend: str = "onnxruntime",
    *,
    device: str = "auto",
    precision: str | None = None,
    check: bool = True,
    meanwhile: Callable[[], object] | None = None,
) -> CheckedSession:
    """Open a bundle's engine and make it prove itself on the bundle's golden images.

    Args:
        bundle: from `open_bundle`.
        backend: one of `BACKENDS`.
        device: "cpu", "cuda", or "auto": cuda where this backend can really use it.
        precision: None means `DEFAULT_PRECISION`.
        check: False skips the golden images; only for tools that compare by themselves.
        meanwhile: called once the runtime is imported, when the graph is still being read: imports that are needed
            later cost nothing here.

    Raises:
        InputError: an unknown backend, device or precision, or one that this backend never has.
        BackendUnavailable: package, driver, device or engine is missing, or they do not fit together.
        BundleError: a file was changed, or the engine's answers are not the model's.
    """
    if backend not in BACKENDS:
        raise InputError(unknown("backend", backend, BACKENDS))
    if device not in DEVICES:
        raise InputError(unknown("device", device, DEVICES))
    if precision is not None and precision not in PRECISIONS:
        raise InputError(unknown("precision", precision, PRECISIONS))
    precision = precision or DEFAULT_PRECISION[backend]
    is_first = BACKENDS[backend] not in sys.modules and backend in ("onnxruntime", "openvino")
    with reading_ahead(bundle, backend, precision) if is_first else nullcontext(bundle) as opened:
        # Only now, while the graph is read: in a new process this imports numpy, which takes as long as a runtime.
        from samdeploy.backends.session import CheckedSession, check_golden

        # Before the runtime: none is loaded for a bundle that cannot be tested.
        golden = bundle.golden() if check else None
        module = load_module(backend)
        if device not in ("auto", *module.RUNS_ON):
            raise InputError(f"backend {backend!r} runs on {' and '.join(module.RUNS_ON)}; device {device!r} found")
        check_precision(backend, precision)
        if meanwhile is not None:
            meanwhile()
        session = CheckedSession(module.load(opened, device, precision), bundle.spec)
    if golden is not None:
        try:
            check_golden(session, *golden)
        except BaseException:
            session.close()
            raise
    return session


def precisions_held(bundle: Bundle, backend: str) -> tuple[str, ...]:
    """The precisions in which a bundle is meant to run on a backend: what `eval`, `bench` and `doctor` look at.

    TensorRT has those of its engines; the others their default, and INT8 where there is a graph of it.
    """
    usual = DEFAULT_PRECISION[backend]
    if backend == "tensorrt":
        # Several targets may share a precision; one of them fits this machine, or none does.
        found = dict.fromkeys(str(file.precision) for file in bundle.select("engine", backend=backend))
        return tuple(found) or (usual,)
    has_int8 = backend != "pytorch" and bundle.find("graph", backend=backend, precision="int8") is not None
    return (usual, "int8") if has_int8 else (usual,)


def check_precision(backend: str, precision: str) -> None:
    """Refuse a precision that a backend never has, on no machine.

    Raises:
        InputError: naming those that it has.
        BackendUnavailable: the runtime is not installed.
    """
    valid = load_module(backend).PRECISIONS
    if precision not in valid:
        raise InputError(f"backend {backend!r} runs {', '.join(valid)}; precision {precision!r} found")


def availability(backend: str) -> str | None:
    """Why a backend cannot run on this machine, with the cure; None where it can.

    Imports the runtime, so the first call takes seconds.

    Raises:
        InputError: an unknown backend.
    """
    if backend not in BACKENDS:
        raise InputError(unknown("backend", backend, BACKENDS))
    try:
        return load_module(backend).unavailable()
    except BackendUnavailable as error:
        return str(error)


def load_module(backend: str) -> Backend:
    """Import the module of a backend in `BACKENDS`.

    Raises:
        BackendUnavailable: its package is missing or does not load.
    """
    try:
        return cast("Backend", importlib.import_module(BACKENDS[backend]))
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            f"backend {backend!r} needs the package {error.name!r}, which is not installed; "
            f"pip install 'samdeploy[{_EXTRA[backend]}]'"
        ) from error
    except (ImportError, OSError) as error:  # installed, but one of its shared libraries does not load
        if _interrupted(error):
            raise KeyboardInterrupt from None
        raise BackendUnavailable(
            f"backend {backend!r} is installed but cannot be loaded: {error}; "
            f"pip install --force-reinstall 'samdeploy[{_EXTRA[backend]}]'"
        ) from error


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: a compiled module turns it into an ImportError of its own."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
