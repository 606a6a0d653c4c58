"""TensorRT 10.12 and later, and TensorRT-RTX: two packages with one interface.

An engine runs only where it was built for: with the same package and version, on the same compute capability.  All of
that stands in the manifest (`built_for`) and is compared first, because TensorRT's own answer to a foreign engine is
"None" or a crash.  Buffers, streams and CUDA graphs are in `device_session`; what is here is TensorRT's own.

The order matters: `trt.Runtime` must not exist before the driver has shown a device, or the process dies of SIGSEGV.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from samdeploy.backends.device import cuda
from samdeploy.backends.device.objects import Stream
from samdeploy.backends.device.session import DeviceSession
from samdeploy.backends.session import Wanted, check_tensors
from samdeploy.backends.tensorrt.library import (
    RUNTIMES,
    TITLES,
    create,
    error_lines,
    error_log,
    import_runtime,
    version_numbers,
)
from samdeploy.backends.tensorrt.runtime_cache import RuntimeCache
from samdeploy.bundle.spec import ModelSpec, TensorSpec
from samdeploy.errors import SMALLER_BATCH, BackendUnavailable

if TYPE_CHECKING:
    from samdeploy.bundle.manifest import BundleFile

# In `built_for["target"]`: the GPU of the machine that built it, whose capability is `built_for["capability"]`.
CURRENT = "current"

_INSTALL = " or ".join(f"pip install 'samdeploy[{extra}]'" for extra in RUNTIMES.values())
_REBUILD = "build it again here: samdeploy export --engine trt"


def unavailable() -> str | None:
    """Why no TensorRT engine can run on this machine, with the cure; None where one can."""
    installed = [name for name in RUNTIMES if importlib.util.find_spec(name)]
    if not installed:
        return f"neither TensorRT nor TensorRT-RTX is installed; {_INSTALL}"
    count, why = cuda.cuda_devices()
    if not count:
        return f"no CUDA device: {why}"
    try:
        cuda.runtime()
        if installed == ["tensorrt_rtx"]:
            return unsupported(import_runtime("tensorrt_rtx"), cuda.describe_device())
    except BackendUnavailable as error:
        return str(error)
    return None


def named_targets(trt: Any) -> list[str]:
    """The compute capabilities that TensorRT-RTX builds for and runs on, such as "SM86"."""
    return [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")]


def unsupported(trt: Any, device: cuda.Device) -> str | None:
    """Why this GPU cannot run any engine of the package `trt`, with the cure; None where it can.

    TensorRT-RTX serves a few compute capabilities.  On others (seen on an H100, SM90) it builds a plan without a
    word and its runtime refuses it.
    """
    if trt.__name__ != "tensorrt_rtx" or device.capability in named_targets(trt):
        return None
    return (
        f"TensorRT-RTX {trt.__version__} does not run on this GPU: {device.name} is {device.capability}, "
        f"one of {', '.join(named_targets(trt))} expected; pip install 'samdeploy[{RUNTIMES['tensorrt']}]'"
    )


def open_plan(trt: Any, plan: bytes, name: str) -> tuple[Any, Any]:
    """Deserialise an engine: its runtime, which must outlive it, and the engine.

    A device must be there, and the plan's hash must be verified: a plan is native code.

    Raises:
        BackendUnavailable: TensorRT does not start, or refuses the plan; with its log.
    """
    lines = error_lines(trt)
    runtime = create(trt, "Runtime", error_log(trt))
    codes = ""
    if hasattr(runtime, "get_engine_validity"):  # TensorRT-RTX
        validity, diagnostics = runtime.get_engine_validity(plan)
        if validity == trt.EngineValidity.INVALID:
            members = trt.EngineInvalidityDiagnostics.__members__.items()
            codes = ", ".join(code for code, bit in members if int(diagnostics) & int(bit)) or "INVALID"
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None or codes:
        because = f"{codes}: {lines.report()}" if codes else lines.report()
        raise BackendUnavailable(f"{TITLES[trt.__name__]} {trt.__version__} refuses {name}: {because}; {_REBUILD}")
    return runtime, engine


def load(wanted: Wanted) -> DeviceSession:
    """Open the bundle's engine that fits this machine.

    Raises:
        BackendUnavailable: no package, no device, no engine of this precision, or none for this machine; the text
            lists every difference.
        BundleError: the engine was changed, or its tensors are not those of the manifest.
    """
    reason = unavailable()
    if reason:
        raise BackendUnavailable(reason)
    bundle, precision = wanted.bundle, wanted.precision
    engines = bundle.select("engine", backend="tensorrt", precision=precision)
    if not engines:
        found = ", ".join(sorted({str(file.precision) for file in bundle.select("engine")})) or "none"
        raise BackendUnavailable(
            f"the bundle holds no TensorRT engine in {precision} (found: {found}); "
            f"make one: samdeploy export --engine trt --precision {precision}"
        )
    here = cuda.describe_device()
    misfits = []
    for file in engines:
        differences = _differences(file, here)
        if not differences:
            trt = import_runtime((file.built_for or {})["runtime"])
            plan = bundle.read(file)
            with cuda.device_zero():
                engine = TensorrtEngine(trt, plan, file.path, bundle.spec, RuntimeCache(trt, here, file.sha256))
                return DeviceSession("tensorrt", precision, bundle.spec, engine, Stream())
        misfits.append(f"{file.path}: {', '.join(differences)}")
    raise BackendUnavailable(f"no engine of the bundle fits this machine: {'; '.join(misfits)}; {_REBUILD}")


def _differences(file: BundleFile, here: cuda.Device) -> list[str]:
    """What an engine was built for and this machine is not, in words."""
    built_for = file.built_for or {}
    runtime = built_for.get("runtime", "")
    if runtime not in RUNTIMES:
        return [f"built by {runtime or 'an unnamed runtime'}, which this samdeploy does not know"]
    try:
        trt = import_runtime(runtime)
    except BackendUnavailable as error:
        return [str(error)]
    differences = []
    built = built_for.get("version", "unknown")
    if version_numbers(built) != version_numbers(trt.__version__):
        differences.append(f"built with {TITLES[runtime]} {built}, installed is {trt.__version__}")
    target = built_for.get("target", "unknown")
    capability = built_for.get("capability", "unknown") if target == CURRENT else target
    if here.capability not in capability.split("+"):
        gpu = built_for.get("gpu") if target == CURRENT else ""
        differences.append(
            f"built for {capability}{f' ({gpu})' if gpu else ''}, this GPU is {here.capability} ({here.name})"
        )
    driver = built_for.get("driver", "") if target == CURRENT else ""
    if _major(driver) > _major(here.driver):
        differences.append(f"built with a driver for CUDA {driver}, this driver is for CUDA {here.driver}: update it")
    return differences


def _major(version: str) -> int:
    """13 of "13.0"; 0 where nothing is known."""
    major = version.split(".")[0]
    return int(major) if major.isdecimal() else 0


class TensorrtEngine:
    """One engine with one execution context: a `DeviceEngine`."""

    def __init__(self, trt: Any, plan: bytes, name: str, spec: ModelSpec, cache: RuntimeCache) -> None:
        """Deserialise `plan` with the module `trt`; a device must be there, and the plan's hash must be verified.

        Raises:
            BackendUnavailable: TensorRT refuses the plan, or there is no memory for its context.
            BundleError: its tensors are not those of `spec`.
        """
        self._trt = trt
        self._runtime: Any
        self._engine: Any
        self._runtime, self._engine = open_plan(trt, plan, name)
        check_tensors(name, engine_tensors(trt, self._engine), spec)
        self._input, self._output = spec.input.name, spec.output.name
        self._pixels = tuple(spec.input.shape[1:])
        self._runtime_cache = cache
        lines = error_lines(trt)
        self._context: Any = cache.execution_context(self._engine)
        if self._context is None:
            raise BackendUnavailable(f"{name}: no execution context can be made: {lines.report()}; {SMALLER_BATCH}")
        self._bound: tuple[int, int, int] | None = None
        smallest, _, largest = self._engine.get_tensor_profile_shape(self._input, 0)
        self.min_batch: int = int(smallest[0])
        self.max_batch: int | None = int(largest[0])

    def enqueue(self, images: int, logits: int, batch: int, stream: Stream) -> None:
        lines = error_lines(self._trt)
        if not (self._bind(images, logits, batch) and self._context.execute_async_v3(stream.handle)):
            self._bound = None
            raise BackendUnavailable(f"TensorRT failed on a batch of {batch}: {lines.report()}")

    def _bind(self, images: int, logits: int, batch: int) -> bool:
        """Give the context its shape and addresses, where they changed.

        Setting a shape, even the same one, makes TensorRT update the context, which cannot be recorded in a CUDA
        graph; so between a run and the capture of the same run nothing is set.
        """
        if self._bound == (images, logits, batch):
            return True
        self._bound = None
        context = self._context
        bound = bool(
            context.set_input_shape(self._input, (batch, *self._pixels))
            and context.set_tensor_address(self._input, images)
            and context.set_tensor_address(self._output, logits)
        )
        if bound:
            self._bound = (images, logits, batch)
        return bound

    def can_be_captured(self, stream: Stream) -> bool:
        ask = getattr(self._context, "is_stream_capturable", None)  # TensorRT-RTX: not while it still compiles
        return True if ask is None else bool(ask(stream.handle))

    def close(self) -> None:
        self._runtime_cache.keep()
        # In this order: TensorRT wants contexts gone before their engine, and engines before their runtime.
        self._context = None
        self._engine = None
        self._runtime = None


def engine_tensors(trt: Any, engine: Any) -> list[TensorSpec]:
    """An engine's inputs, then its outputs; a dynamic axis is "N"."""
    types = {trt.uint8: "uint8", trt.float32: "float32", trt.float16: "float16"}
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    names.sort(key=lambda name: engine.get_tensor_mode(name) != trt.TensorIOMode.INPUT)
    return [
        TensorSpec(
            name,
            types.get(engine.get_tensor_dtype(name), str(engine.get_tensor_dtype(name))),
            tuple("N" if axis < 0 else axis for axis in engine.get_tensor_shape(name)),
        )
        for name in names
    ]


def describe_engine(trt: Any, engine: Any, batch: int) -> str:
    """The engine inspector's JSON: every layer with its tensors, types and the ONNX nodes it was made of.

    Args:
        batch: within the engine's profile; without one, types of tensors with a dynamic shape read "N/A".
    """
    inspector = engine.create_engine_inspector()
    context = engine.create_execution_context()
    if context is not None:  # else there is too little memory
        shape = tuple(engine.get_tensor_shape("image"))[1:]
        context.set_input_shape("image", (batch, *shape))
        inspector.execution_context = context
    information = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    del inspector, context  # in this order: TensorRT wants contexts gone before their engine
    return str(information)
