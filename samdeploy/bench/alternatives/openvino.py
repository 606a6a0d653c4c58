"""OpenVINO as its documentation has it for latency, on a graph that is not ours."""

from __future__ import annotations

from samdeploy.backends.openvino.package import import_openvino
from samdeploy.bench.turns import Run

ov = import_openvino()


def plain(graph: bytes, device: str) -> Run:
    """Compile a graph for the CPU in FP32: left to itself, OpenVINO computes in BF16 where the processor has it."""
    core = ov.Core()
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(graph), "CPU", config).create_infer_request()
    return lambda batch: request.infer({0: batch}, share_inputs=True)[0]
