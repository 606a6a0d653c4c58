"""ONNX Runtime: FP32 on the CPU, FP32 and FP16 on CUDA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from samdeploy.backends.cuda import cuda_devices
from samdeploy.backends.session import Float32Array, UInt8Array, check_tensors, pick_file
from samdeploy.errors import BackendUnavailable
from samdeploy.spec import ModelSpec, TensorSpec

if TYPE_CHECKING:
    from samdeploy.bundle import Bundle

PRECISIONS = ("fp32", "fp16")
RUNS_ON = ("cpu", "cuda")

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(float16)": "float16"}


def unavailable() -> str | None:
    """None: the CPU provider runs everywhere the package can be imported."""
    return None


def load(bundle: Bundle, device: str, precision: str) -> OnnxruntimeSession:
    """Open the bundle's ONNX graph of this precision.

    Raises:
        BackendUnavailable: no such graph; CUDA asked and not to be had; FP16 on the CPU.
        BundleError: the graph was changed or has other tensors than the manifest says.
    """
    file = pick_file(bundle, "graph", "onnxruntime", precision)
    no_cuda = _no_cuda()
    if device == "cuda" and no_cuda:
        raise BackendUnavailable(no_cuda)
    graph = bundle.read(file)
    if no_cuda is None and device != "cpu":
        inference = _inference(graph, _CUDA, has_fp16=precision == "fp16")
        # A CUDA provider whose libraries do not load is dropped with no more than a line in the log.
        if inference.get_providers()[0] == _CUDA:
            return OnnxruntimeSession(inference, "cuda", precision, bundle.spec)
        no_cuda = (
            f"ONNX Runtime {ort.__version__} could not start its CUDA provider and fell back to the CPU: the CUDA or "
            "cuDNN libraries are missing or of another version"
        )
        if device == "cuda":
            raise BackendUnavailable(f"{no_cuda}; install them, or use device 'cpu'")
    if precision == "fp16":
        # Seen in profiles of 1.31 on AVX-512: Conv, Gemm and the rest run on float tensors between inserted casts.
        raise BackendUnavailable(
            "ONNX Runtime's CPU provider has no FP16 kernels and computes an FP16 graph in FP32, so its answers would "
            f"not be those of FP16; use precision fp32, or a CUDA device ({no_cuda or 'device cpu was asked for'})"
        )
    return OnnxruntimeSession(_inference(graph, _CPU, has_fp16=False), "cpu", precision, bundle.spec)


class OnnxruntimeSession:
    """One graph on one provider.  ONNX Runtime's own `run` may be called from several threads at once."""

    backend = "onnxruntime"

    def __init__(self, inference: Any, device: str, precision: str, spec: ModelSpec) -> None:
        """`inference` is an `onnxruntime.InferenceSession`; its tensors must be those of `spec`."""
        self.device = device
        self.precision = precision
        tensors = [
            TensorSpec(t.name, _TYPES.get(t.type, t.type), tuple(str(n) if n is None else n for n in t.shape))
            for t in (*inference.get_inputs(), *inference.get_outputs())
        ]
        check_tensors(f"the {precision} graph", tensors, spec)
        self._inference: Any = inference
        self._input = spec.input.name

    def run(self, batch: UInt8Array) -> Float32Array:
        """uint8 [N, H, W, 3], RGB -> logits float32 [N, K], owned by the caller."""
        return _run(self._inference, self._input, batch)

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
    inference = _inference(graph, _CPU, has_fp16=True)
    return _run(inference, inference.get_inputs()[0].name, batch)


def _no_cuda() -> str | None:
    """Why CUDA cannot be used; None where it can be tried."""
    if _CUDA not in ort.get_available_providers():
        return (
            f"ONNX Runtime {ort.__version__} is installed without CUDA; pip uninstall onnxruntime, then "
            "pip install 'samdeploy[onnxruntime-gpu]' (the two packages overwrite each other)"
        )
    count, why = cuda_devices()
    return None if count else f"no CUDA device: {why}"


def _inference(graph: bytes, provider: str, *, has_fp16: bool) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors; its warnings about constant folding tell the user nothing
    providers: list[Any] = [_CPU]
    if provider == _CUDA:
        if hasattr(ort, "preload_dlls"):  # since 1.21: finds the CUDA libraries that pip installed
            ort.preload_dlls()
        # FP32 must mean FP32: by default convolutions use TF32 on Ampere and later.
        providers = [(_CUDA, {"use_tf32": "0"}), _CPU]
    try:
        # 1.30 and 1.31 die of SIGSEGV in this optimizer on some FP16 graphs; it serves FP32 convolutions on CPUs.
        off = ["NchwcTransformer"] if has_fp16 else []
        return ort.InferenceSession(graph, options, providers=providers, disabled_optimizers=off)
    except Exception as error:  # its exception classes are private and share no other base
        raise BackendUnavailable(
            f"ONNX Runtime {ort.__version__} cannot open the graph: {_reason(error)}; export again, "
            "or pip install --upgrade onnxruntime"
        ) from error


def _run(inference: Any, name: str, batch: UInt8Array) -> Float32Array:
    try:
        return np.asarray(inference.run(None, {name: batch})[0], np.float32)
    except Exception as error:  # as above
        raise BackendUnavailable(f"ONNX Runtime failed on a batch of {len(batch)}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
