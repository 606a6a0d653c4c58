"""OpenVINO on the CPU: FP32, and BF16 or FP16 where the processor computes in it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov

from samdeploy.backends.session import Float32Array, UInt8Array, check_tensors, pick_file
from samdeploy.errors import BackendUnavailable
from samdeploy.spec import ModelSpec, TensorSpec

if TYPE_CHECKING:
    from samdeploy.bundle import Bundle

PRECISIONS = ("fp32", "bf16", "fp16")
RUNS_ON = ("cpu",)

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_TYPES = {"u8": "uint8", "f32": "float32", "f16": "float16", "bf16": "bfloat16"}


def unavailable() -> str | None:
    """None: the CPU plugin is part of the package."""
    return None


def load(bundle: Bundle, device: str, precision: str) -> OpenvinoSession:
    """Compile the bundle's FP32 graph for this CPU, computing in `precision`.

    The precision is OpenVINO's to apply, so every precision starts from the FP32 graph.

    Raises:
        BackendUnavailable: no such graph, OpenVINO refuses it, or this CPU does not compute in `precision`.
        BundleError: the graph was changed or has other tensors than the manifest says.
    """
    graph = bundle.read(pick_file(bundle, "graph", "openvino", "fp32"))
    config = {
        # Always said: left out, OpenVINO computes in bf16 by itself on CPUs that have it (logits off by 1 %).
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        # Keeps it from trading accuracy elsewhere; the precision hint above wins over it (tried: bf16 stays bf16).
        "EXECUTION_MODE_HINT": "ACCURACY",
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = ov.Core()
    try:
        compiled = core.compile_model(core.read_model(graph), "CPU", config)
    except RuntimeError as error:
        raise BackendUnavailable(
            f"OpenVINO {ov.__version__} cannot compile the graph: {_reason(error)}; export again, "
            "or pip install --upgrade openvino"
        ) from error
    effective = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if effective != _HINTS[precision]:
        usable = next((ours for ours, theirs in _HINTS.items() if theirs == effective), "fp32")
        raise BackendUnavailable(
            f"OpenVINO would compute in {effective} instead of {_HINTS[precision]}: "
            f"{core.get_property('CPU', 'FULL_DEVICE_NAME').strip()} has no {precision} arithmetic that it uses; "
            f"use precision {usable}"
        )
    return OpenvinoSession(compiled, precision, bundle.spec)


class OpenvinoSession:
    """One compiled graph with one inference request; threads may share it and take turns."""

    backend = "openvino"
    device = "cpu"

    def __init__(self, compiled: Any, precision: str, spec: ModelSpec) -> None:
        """`compiled` is an `openvino.CompiledModel`; its tensors must be those of `spec`."""
        self.precision = precision
        tensors = [
            TensorSpec(
                port.any_name,
                _TYPES.get(port.element_type.get_type_name(), port.element_type.get_type_name()),
                tuple("N" if axis.is_dynamic else axis.get_length() for axis in port.partial_shape),
            )
            for port in (*compiled.inputs, *compiled.outputs)
        ]
        check_tensors("the OpenVINO graph", tensors, spec)
        self._request: Any = compiled.create_infer_request()
        self._lock = threading.Lock()

    def run(self, batch: UInt8Array) -> Float32Array:
        """uint8 [N, H, W, 3], RGB -> logits float32 [N, K], owned by the caller."""
        try:
            with self._lock:
                # share_inputs: the batch is read where it lies; share_outputs False: the answer is copied out of
                # the request's own memory, which the next run writes again.
                answer = self._request.infer({0: batch}, share_inputs=True, share_outputs=False)
        except RuntimeError as error:
            raise BackendUnavailable(f"OpenVINO failed on a batch of {len(batch)}: {_reason(error)}") from error
        return np.asarray(answer[0], np.float32)

    def close(self) -> None:
        """Drop the compiled graph."""
        self._request = None


def _reason(error: RuntimeError) -> str:
    """The last line that says something; OpenVINO puts its own source lines before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
