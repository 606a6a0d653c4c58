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

from samdeploy.backends.names import BACKENDS, check_names, check_supported
from samdeploy.backends.read_ahead import ReadAhead
from samdeploy.errors import BackendUnavailable, check_name

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
        precision: None means the first that the backend has.
        check: False skips the golden images; only for tools that compare by themselves.
        meanwhile: called once the runtime is imported, when the graph is still being read: imports that are needed
            later cost nothing here.

    Raises:
        InputError: an unknown backend, device or precision, or one that this backend never has.
        BackendUnavailable: package, driver, device or engine is missing, or they do not fit together.
        BundleError: a file was changed, or the engine's answers are not the model's.
    """
    check_names(backend, device, precision)
    precision = precision or BACKENDS[backend].precisions[0]
    check_supported(backend, device, precision)
    with _read_ahead(bundle, backend, precision) or nullcontext() as ahead:
        # Only now, while the graph is read: in a new process this imports numpy, which takes as long as a runtime.
        from samdeploy.backends.session import CheckedSession, Wanted, check_golden

        # Before the runtime: none is loaded for a bundle that cannot be tested.
        golden = bundle.golden() if check else None
        module = load_module(backend)
        if meanwhile is not None:
            meanwhile()
        session = CheckedSession(module.load(Wanted(bundle, device, precision, ahead)), bundle.spec)
    if golden is not None:
        try:
            check_golden(session, *golden)
        except BaseException:
            session.close()
            raise
    return session


def _read_ahead(bundle: Bundle, backend: str, precision: str) -> ReadAhead | None:
    """Start to read the graph, where a runtime that wants one is imported for the first time.

    A guess: another file than the one that is asked for later costs processor time and nothing else.
    """
    if BACKENDS[backend].module in sys.modules or backend not in ("onnxruntime", "openvino"):
        return None
    graphs = (bundle.find("graph", backend=backend, precision=name) for name in (precision, "fp32"))
    file = next((graph for graph in graphs if graph is not None), None)
    return None if file is None else ReadAhead(bundle, file)


def precisions_held(bundle: Bundle, backend: str) -> tuple[str, ...]:
    """The precisions in which a bundle is meant to run on a backend: what `eval`, `bench` and `doctor` look at.

    TensorRT has those of its engines; the others their default, and INT8 where there is a graph of it.
    """
    usual = BACKENDS[backend].precisions[0]
    if backend == "tensorrt":
        # Several targets may share a precision; one of them fits this machine, or none does.
        found = dict.fromkeys(str(file.precision) for file in bundle.select("engine", backend=backend))
        return tuple(found) or (usual,)
    has_int8 = backend != "pytorch" and bundle.find("graph", backend=backend, precision="int8") is not None
    return (usual, "int8") if has_int8 else (usual,)


def availability(backend: str) -> str | None:
    """Why a backend cannot run on this machine, with the cure; None where it can.

    Imports the runtime, so the first call takes seconds.

    Raises:
        InputError: an unknown backend.
    """
    check_name("backend", backend, BACKENDS)
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
        return cast("Backend", importlib.import_module(BACKENDS[backend].module))
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            f"backend {backend!r} needs the package {error.name!r}, which is not installed; "
            f"pip install 'samdeploy[{BACKENDS[backend].extra}]'"
        ) from error
    except (ImportError, OSError) as error:  # installed, but one of its shared libraries does not load
        if _interrupted(error):
            raise KeyboardInterrupt from None
        raise BackendUnavailable(
            f"backend {backend!r} is installed but cannot be loaded: {error}; "
            f"pip install --force-reinstall 'samdeploy[{BACKENDS[backend].extra}]'"
        ) from error


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: a compiled module turns it into an ImportError of its own."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
