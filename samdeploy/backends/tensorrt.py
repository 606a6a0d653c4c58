"""TensorRT 10.12 and later, and TensorRT-RTX: two packages with one interface.

An engine runs only where it was built for: with the same package and version, on the same compute capability.  All of
that stands in the manifest (`built_for`) and is compared first, because TensorRT's own answer to a foreign engine is
"None" or a crash.

The order matters: `trt.Runtime` must not exist before the driver has shown a device, or the process dies of SIGSEGV.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from samdeploy.backends import cuda
from samdeploy.backends.session import Float32Array, UInt8Array, check_tensors
from samdeploy.errors import BackendUnavailable
from samdeploy.spec import ModelSpec, TensorSpec

if TYPE_CHECKING:
    from samdeploy.bundle import Bundle
    from samdeploy.manifest import BundleFile

PRECISIONS = ("fp16", "fp32", "bf16")
RUNS_ON = ("cuda",)

# Python module -> the extra that installs it.  The module's name is also `built_for["runtime"]`.
RUNTIMES = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
_TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
# In `built_for["target"]`: the GPU of the machine that built it, whose capability is `built_for["capability"]`.
CURRENT = "current"

_INSTALL = " or ".join(f"pip install 'samdeploy[{extra}]'" for extra in RUNTIMES.values())
_REBUILD = "build it again here: samdeploy export --engine trt"


def unavailable() -> str | None:
    """Why no TensorRT engine can run on this machine, with the cure; None where one can."""
    if not any(importlib.util.find_spec(name) for name in RUNTIMES):
        return f"neither TensorRT nor TensorRT-RTX is installed; {_INSTALL}"
    cuda.runtime()
    count, why = cuda.cuda_devices()
    return None if count else f"no CUDA device: {why}"


def import_runtime(name: str) -> Any:
    """The Python module of TensorRT ("tensorrt") or TensorRT-RTX ("tensorrt_rtx").

    Raises:
        BackendUnavailable: it is not installed, or its libraries do not load.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            f"{_TITLES[name]} is not installed; pip install 'samdeploy[{RUNTIMES[name]}]'"
        ) from error
    except (ImportError, OSError) as error:
        raise BackendUnavailable(f"{_TITLES[name]} is installed but its libraries do not load: {error}") from error


def error_log(trt: Any) -> Any:
    """A TensorRT logger that collects errors instead of printing them.

    Returns:
        An `ILogger` whose `errors` is a list of lines; `report()` joins them.
    """

    class ErrorLog(trt.ILogger):  # type: ignore[misc]  # the base comes with the package, which has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

        def report(self) -> str:
            return "; ".join(dict.fromkeys(self.errors)) or "it gives no reason"

    return ErrorLog()


def load(bundle: Bundle, device: str, precision: str) -> TensorrtSession:
    """Open the bundle's engine that fits this machine.

    Raises:
        BackendUnavailable: no package, no device, no engine of this precision, or none for this machine; the text
            lists every difference.
        BundleError: the engine was changed, or its tensors are not those of the manifest.
    """
    reason = unavailable()
    if reason:
        raise BackendUnavailable(reason)
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
            return TensorrtSession(trt, bundle.read(file), file.path, precision, bundle.spec)
        misfits.append(f"{file.path}: {', '.join(differences)}")
    raise BackendUnavailable(f"no engine of the bundle fits this machine: {'; '.join(misfits)}; {_REBUILD}")


def _differences(file: BundleFile, here: cuda.Device) -> list[str]:
    """What an engine was built for and this machine is not, in words."""
    built_for = file.built_for or {}
    runtime = built_for.get("runtime", "")
    if runtime not in RUNTIMES:
        return [f"built by {runtime or 'an unnamed runtime'}, which this samdeploy does not know"]
    try:
        version = import_runtime(runtime).__version__
    except BackendUnavailable as error:
        return [str(error)]
    differences = []
    built = built_for.get("version", "unknown")
    if version != built:
        differences.append(f"built with {_TITLES[runtime]} {built}, installed is {version}")
    target = built_for.get("target", "unknown")
    capability = built_for.get("capability", "unknown") if target == CURRENT else target
    if capability != here.capability:
        gpu = built_for.get("gpu")
        differences.append(
            f"built for {capability}{f' ({gpu})' if gpu else ''}, this GPU is {here.capability} ({here.name})"
        )
    return differences


class TensorrtSession:
    """One engine with one execution context, one stream and buffers for its largest batch.

    Larger batches are run in pieces; threads may share it and take turns.
    """

    backend = "tensorrt"
    device = "cuda"

    def __init__(self, trt: Any, plan: bytes, name: str, precision: str, spec: ModelSpec) -> None:
        """Deserialise `plan` with the module `trt`; a device must be there, and the plan's hash must be verified."""
        self.precision = precision
        self._lock = threading.Lock()
        self._input, self._output = spec.input.name, spec.output.name
        self._classes = len(spec.classes)
        self._log = error_log(trt)  # TensorRT keeps a bare pointer to it
        self._runtime: Any = trt.Runtime(self._log)
        self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise BackendUnavailable(
                f"{_TITLES[trt.__name__]} {trt.__version__} refuses {name}: {self._log.report()}; {_REBUILD}"
            )
        check_tensors(name, engine_tensors(trt, self._engine), spec)
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise BackendUnavailable(f"{name}: no execution context can be made: {self._log.report()}")

        smallest, _, largest = self._engine.get_tensor_profile_shape(self._input, 0)
        self._min_batch, self._max_batch = int(smallest[0]), int(largest[0])
        self._stream = cuda.Stream()
        self._images = cuda.Buffer(int(np.prod(largest)))
        self._logits = cuda.Buffer(self._max_batch * self._classes * 4)
        self._context.set_tensor_address(self._input, self._images.device)
        self._context.set_tensor_address(self._output, self._logits.device)

    def run(self, batch: UInt8Array) -> Float32Array:
        """uint8 [N, H, W, 3], RGB -> logits float32 [N, K], owned by the caller."""
        logits = np.empty((len(batch), self._classes), np.float32)
        with self._lock:
            for start in range(0, len(batch), self._max_batch):
                stop = min(start + self._max_batch, len(batch))
                self._run_piece(batch[start:stop], logits[start:stop])
        return logits

    def _run_piece(self, images: UInt8Array, logits: Float32Array) -> None:
        # Below the profile's smallest batch the rest of the buffer is computed too and not looked at.
        batch = max(len(images), self._min_batch)
        self._images.host[: images.nbytes] = images.reshape(-1)
        self._images.upload(images.nbytes, self._stream)
        self._done(self._context.set_input_shape(self._input, (batch, *images.shape[1:])), batch)
        self._done(self._context.execute_async_v3(self._stream.handle), batch)
        self._logits.download(logits.nbytes, self._stream)
        self._stream.synchronize()
        logits[:] = self._logits.host[: logits.nbytes].view(np.float32).reshape(logits.shape)

    def _done(self, good: bool, batch: int) -> None:
        if not good:
            raise BackendUnavailable(f"TensorRT failed on a batch of {batch}: {self._log.report()}")

    def close(self) -> None:
        """Free the engine, its buffers and its stream."""
        with self._lock:
            self._stream.synchronize()
            # In this order: TensorRT wants contexts gone before their engine, and engines before their runtime.
            self._context = None
            self._engine = None
            self._runtime = None
            self._images.close()
            self._logits.close()
            self._stream.close()


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
