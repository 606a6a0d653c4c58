"""ONNX Runtime as its documentation has it, on a graph that is not ours."""

from __future__ import annotations

import onnxruntime as ort

from samdeploy.bench.turns import Run
from samdeploy.errors import BackendUnavailable

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def plain(graph: bytes, device: str) -> Run:
    """Open a graph with one input and one output; "auto" takes CUDA where the package has it.

    Raises:
        BackendUnavailable: CUDA was asked for and is not to be had.
    """
    if device == "auto":
        device = "cuda" if _PROVIDERS["cuda"] in ort.get_available_providers() else "cpu"
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if device == "cuda" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    providers = list(dict.fromkeys((_PROVIDERS[device], _PROVIDERS["cpu"])))
    available = [name for name in providers if name in ort.get_available_providers()]
    session = ort.InferenceSession(graph, options, providers=available)
    if session.get_providers()[0] != _PROVIDERS[device]:
        raise BackendUnavailable(f"ONNX Runtime {ort.__version__} has no working {_PROVIDERS[device]}")
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]
