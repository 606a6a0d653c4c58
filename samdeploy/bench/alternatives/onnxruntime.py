"""ONNX Runtime as its documentation has it, on a graph that is not ours."""

from __future__ import annotations

import onnxruntime as ort

from samdeploy.backends.device.cuda import cuda_devices
from samdeploy.bench.turns import Run
from samdeploy.errors import BackendUnavailable

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def on_cuda(device: str) -> bool:
    """Whether `plain` would compute on a GPU."""
    return device != "cpu" and _PROVIDERS["cuda"] in ort.get_available_providers() and bool(cuda_devices()[0])


def plain(graph: bytes, device: str, *, tf32: bool = True) -> Run:
    """Open a graph with one input and one output; "auto" takes CUDA where it can be had.

    Args:
        tf32: on a GPU, let convolutions round float32 to 10 bits of mantissa, which is ONNX Runtime's default.

    Raises:
        BackendUnavailable: CUDA was asked for and is not to be had.
    """
    if device == "auto":
        device = "cuda" if on_cuda(device) else "cpu"
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if device == "cuda" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    providers = list(dict.fromkeys((_PROVIDERS[device], _PROVIDERS["cpu"])))
    available = [name for name in providers if name in ort.get_available_providers()]
    settings: list[dict[str, str]] = [
        {"use_tf32": "0"} if name == _PROVIDERS["cuda"] and not tf32 else {} for name in available
    ]
    session = ort.InferenceSession(graph, options, providers=available, provider_options=settings)
    if session.get_providers()[0] != _PROVIDERS[device]:
        raise BackendUnavailable(f"ONNX Runtime {ort.__version__} has no working {_PROVIDERS[device]}")
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]
