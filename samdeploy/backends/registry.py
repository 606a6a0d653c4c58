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

from samdeploy.backends.names import BACKENDS, MAP_BACKENDS, PREFERENCE, check_names, check_supported
from samdeploy.backends.read_ahead import ReadAhead
from samdeploy.errors import NEXT_FAULT, BackendUnavailable, InputError, check_name

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
    maps: bool = False,
    check: bool = True,
    meanwhile: Callable[[], object] | None = None,
) -> CheckedSession:
    """Open a bundle's engine and make it prove itself on the bundle's golden images.

    Args:
        bundle: from `open_bundle`.
        backend: one of `BACKENDS`.
        device: "cpu", "cuda", or "auto": cuda where this backend can really use it.
        precision: None means the first that the backend has.
        maps: the session also computes class activation maps, see `CheckedSession.run_with_maps`.
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
    check_supported(backend, device, precision, maps=maps)
    with _read_ahead(bundle, backend, precision, "cam_graph" if maps else "graph") or nullcontext() as ahead:
        # Only now, while the graph is read: in a new process this imports numpy, which takes as long as a runtime.
        from samdeploy.backends.golden import check_golden, check_golden_maps
        from samdeploy.backends.session import CheckedSession, Wanted

        # Before the runtime: none is loaded for a bundle that cannot be tested.
        golden = bundle.golden() if check else None
        module = load_module(backend)
        if meanwhile is not None:
            meanwhile()
        wanted = Wanted(bundle, device, precision, maps, ahead)
        session = CheckedSession(module.load(wanted), bundle.spec, has_maps=maps)
    if golden is not None:
        try:
            (check_golden_maps if maps else check_golden)(session, *golden)
        except BaseException:
            session.close()
            raise
    return session


def open_first(
    bundle: Bundle,
    *,
    device: str = "auto",
    precision: str | None = None,
    maps: bool = False,
    meanwhile: Callable[[], object] | None = None,
) -> tuple[CheckedSession, dict[str, str]]:
    """The first backend of `PREFERENCE` that can open the bundle, and why those before it could not.

    Args:
        device, precision, maps, meanwhile: as for `open_session`.

    Returns:
        The session; and for each backend that was passed over, but those that never have what was asked for, the
        reason.

    Raises:
        InputError: an unknown device or precision.
        BackendUnavailable: none can, with the reasons of all.
        BundleError: a file was changed, or an engine's answers are not the model's.
    """
    reasons: dict[str, BackendUnavailable | InputError] = {}
    for name in MAP_BACKENDS if maps else PREFERENCE:
        try:
            session = open_session(bundle, name, device=device, precision=precision, maps=maps, meanwhile=meanwhile)
        except (BackendUnavailable, InputError) as error:
            reasons[name] = error
        else:
            return session, {name: str(why) for name, why in reasons.items() if isinstance(why, BackendUnavailable)}
    wanted = "compute this bundle's class activation maps" if maps else "open this bundle here"
    wanted += f" in {precision}" if precision is not None else ""
    every = "".join(f"{NEXT_FAULT}{name}: {error}" for name, error in reasons.items())
    raise BackendUnavailable(f"no runtime can {wanted}:{every}")


def _read_ahead(bundle: Bundle, backend: str, precision: str, role: str) -> ReadAhead | None:
    """Start to read the graph, where a runtime that wants one is imported for the first time.

    A guess: another file than the one that is asked for later costs processor time and nothing else.
    """
    if BACKENDS[backend].module in sys.modules or backend not in ("onnxruntime", "openvino"):
        return None
    graphs = (bundle.find(role, backend=backend, precision=name) for name in (precision, "fp32"))
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
