"""ONNX Runtime: FP32 and INT8 on the CPU, FP32 and FP16 on CUDA.

On CUDA the session is a `DeviceSession`: the same buffers, stream, graphs and `run_async` as TensorRT's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.backends.session import Wanted, check_tensors
from samdeploy.bundle.spec import ModelSpec, TensorSpec, cam_spec
from samdeploy.errors import BackendUnavailable
from samdeploy.files import SealedFile
from samdeploy.graphs.inference import (
    CPU,
    CUDA,
    Options,
    device_of,
    open_inference,
    run_graph,
    run_inference,
)

if TYPE_CHECKING:
    from samdeploy.backends.device.session import DeviceSession

_FELL_BACK = (
    f"ONNX Runtime {ort.__version__} could not start its CUDA provider and fell back to the CPU: the CUDA or cuDNN "
    "libraries are missing or of another version"
)
_TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(float16)": "float16"}


def unavailable() -> str | None:
    """None: the CPU provider runs everywhere the package can be imported."""
    return None


def load(wanted: Wanted) -> OnnxruntimeSession | DeviceSession:
    """Open the bundle's ONNX graph of this precision.

    ONNX Runtime does not promise that its work on CUDA can be recorded from outside: the session goes without CUDA
    graphs where a recording does not repeat its run.

    Raises:
        BackendUnavailable: no such graph; CUDA asked and not to be had; FP16 on the CPU, or INT8 on CUDA.
        BundleError: the graph was changed or has other tensors than the manifest says.
    """
    spec, device, precision = wanted.bundle.spec, wanted.device, wanted.precision
    with wanted.seal_graph("onnxruntime", precision) as graph:
        if wanted.maps:
            return OnnxruntimeSession(_open_on(device, graph, precision), precision, spec, maps=True)
        why_not = _why_not_cuda(device, precision)
        if why_not is None:
            session = _load_cuda(graph, spec, precision)
            if session is not None:
                return session
        _check_cpu(device, precision, why_not or _FELL_BACK)
        if precision != "int8":  # the CPU provider has no lesser arithmetic to fall to
            return OnnxruntimeSession(open_inference(graph), precision, spec)
        from samdeploy.backends.onnxruntime.int8_proof import open_int8

        pixels = tuple(int(length) for length in spec.input.shape[1:])
        return OnnxruntimeSession(open_int8(graph, spec.input.name, pixels), precision, spec)


def _load_cuda(graph: SealedFile, spec: ModelSpec, precision: str) -> DeviceSession | None:
    """None where ONNX Runtime fell back to the CPU."""
    # Late, as all of CUDA's part: it costs a start on the CPU 10 ms.
    from samdeploy.backends.device import cuda
    from samdeploy.backends.device.objects import Stream
    from samdeploy.backends.device.session import DeviceSession
    from samdeploy.backends.onnxruntime.cuda import CudaEngine

    with cuda.device_zero():
        stream = Stream()
        try:
            inference = open_inference(graph, Options(CUDA, fp16=precision == "fp16", stream=stream.handle))
            if device_of(inference) == "cuda":
                _check_graph(inference, precision, spec)
                engine = CudaEngine(inference, spec)
                return DeviceSession("onnxruntime", precision, spec, engine, stream)
        except BaseException:
            stream.close()
            raise
        stream.close()
    return None


class OnnxruntimeSession:
    """One graph that works on host arrays.  ONNX Runtime's own `run` may be called from several threads at once."""

    backend = "onnxruntime"

    def __init__(self, inference: Any, precision: str, spec: ModelSpec, *, maps: bool = False) -> None:
        """`inference` comes from `open_inference`; its tensors must be those of `spec`, and with `maps` those too."""
        self.device = device_of(inference)
        self.precision = precision
        _check_graph(inference, precision, spec, *([cam_spec(spec)] if maps else []))
        self._inference: Any = inference
        self._input, self._logits = spec.input.name, [spec.output.name]

    def run(self, batch: UInt8Array) -> Float32Array:
        """uint8 [N, H, W, 3], RGB -> logits float32 [N, K], owned by the caller."""
        return np.asarray(run_inference(self._inference, {self._input: batch}, self._logits)[0], np.float32)

    def run_with_maps(self, batch: UInt8Array) -> tuple[Float32Array, Float32Array]:
        """uint8 [N, H, W, 3], RGB -> logits float32 [N, K] and maps float32 [N, K, h, w]."""
        logits, maps = run_inference(self._inference, {self._input: batch})
        return np.asarray(logits, np.float32), np.asarray(maps, np.float32)

    def close(self) -> None:
        """Drop the graph."""
        self._inference = None


def emulate(graph: bytes, batch: UInt8Array) -> Float32Array:
    """Logits of a graph of any precision, on the CPU: a numeric check of an export, not a backend.

    Of an FP16 graph this shows the **rounding of weights and constants only**: the CPU provider puts casts around
    FP16 nodes and keeps activations in FP32 between them (1.31 does so at every optimization level), so neither
    the rounding nor the overflow of an FP16 activation is seen.  In a test, a convolution whose FP16 result is
    infinite gave its finite FP32 value.

    Args:
        graph: an ONNX file with one input and one output.
        batch: uint8 [N, H, W, 3].

    Returns:
        float32 [N, K].

    Raises:
        BackendUnavailable: ONNX Runtime refuses the graph or the batch.
    """
    return emulate_all(graph, batch)[0]


def emulate_all(graph: bytes, batch: UInt8Array) -> list[Float32Array]:
    """Every output of a graph, in its order; see `emulate`."""
    return [np.asarray(output, np.float32) for output in run_graph(graph, batch, Options(fp16=True))[0]]


def graph_precision(precision: str) -> str:
    """Each precision has a graph of its own."""
    return precision


def run_outputs(graph: bytes, device: str, precision: str, batch: UInt8Array) -> tuple[list[Any], str]:
    """Every output of a graph, as arrays in its order, and where it ran: a `TensorBackend`.

    Raises:
        BackendUnavailable: CUDA asked and not to be had; FP16 on the CPU, or INT8 on CUDA.
    """
    inference = _open_on(device, graph, precision)
    return run_inference(inference, {inference.get_inputs()[0].name: batch}), device_of(inference)


def _open_on(device: str, graph: SealedFile | bytes, precision: str) -> Any:
    """On CUDA where `device` allows it and it can be had, else on the CPU; it works on host arrays in either case."""
    why_not = _why_not_cuda(device, precision)
    inference = open_inference(graph, Options(CPU if why_not else CUDA, fp16=precision == "fp16"))
    if device_of(inference) == "cpu":
        _check_cpu(device, precision, why_not or _FELL_BACK)
    return inference


def _why_not_cuda(device: str, precision: str) -> str | None:
    """None where CUDA is to be tried.

    Raises:
        BackendUnavailable: it was asked for and cannot be had.
    """
    if device == "cpu":
        return "device cpu was asked for"
    why = _no_cuda()
    if precision == "int8":
        why = (
            "ONNX Runtime's CUDA provider has no INT8 convolutions and would compute them in FP32 between "
            "conversions; use device cpu, or backend tensorrt"
        )
    if device == "cuda" and why:
        raise BackendUnavailable(why)
    return why


def _check_cpu(device: str, precision: str, why_not_cuda: str) -> None:
    """Refuse to compute on the CPU what was asked of CUDA, or what the CPU provider does not compute."""
    if device == "cuda":
        raise BackendUnavailable(f"{why_not_cuda}; install them, or use device 'cpu'")
    if precision == "fp16":
        # Seen in profiles of 1.31 on AVX-512: Conv, Gemm and the rest run on float tensors between inserted casts.
        raise BackendUnavailable(
            "ONNX Runtime's CPU provider has no FP16 kernels and computes an FP16 graph in FP32, so its answers would "
            f"not be those of FP16; use precision fp32, or a CUDA device ({why_not_cuda})"
        )


def _no_cuda() -> str | None:
    """Why CUDA cannot be used; None where it can be tried."""
    if CUDA not in ort.get_available_providers():
        return (
            f"ONNX Runtime {ort.__version__} is installed without CUDA; pip uninstall onnxruntime, then "
            "pip install 'samdeploy[onnxruntime-gpu]' (the two packages overwrite each other)"
        )
    from samdeploy.backends.device import cuda

    count, why = cuda.cuda_devices()
    if not count:
        return f"no CUDA device: {why}"
    try:
        cuda.call("cudaGetDevice")  # cuda-python is there, and the driver is new enough for it
    except BackendUnavailable as error:
        return str(error)
    return None


def _check_graph(inference: Any, precision: str, spec: ModelSpec, *more: TensorSpec) -> None:
    tensors = [
        TensorSpec(t.name, _TYPES.get(t.type, t.type), tuple(str(n) if n is None else n for n in t.shape))
        for t in (*inference.get_inputs(), *inference.get_outputs())
    ]
    check_tensors(f"the {precision} graph", tensors, spec, *more)
