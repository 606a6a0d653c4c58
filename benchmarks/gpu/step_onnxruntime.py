"""ONNX Runtime's CUDA provider on the FP16 graphs; input and output stay on the device.

onnxruntime        NCHW, as the graph is written
onnxruntime-nhwc   prefer_nhwc: the provider turns the graph to channels last
onnxruntime-graph  the same, captured in a CUDA graph
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from child import NotRun, emit, reason, run
from networks import GRAPH_NETS, Plan, buffers_of, logits_of
from timing import Call, agreement, measure

_VARIANTS: dict[str, dict[str, str]] = {
    "onnxruntime-nhwc": {"prefer_nhwc": "1"},
    "onnxruntime": {},
    "onnxruntime-graph": {"prefer_nhwc": "1", "enable_cuda_graph": "1"},
}

# ONNX Runtime's own number for "do not capture".
_NO_GRAPH = "-1"


def step(plan: Plan, work: Path, options: argparse.Namespace) -> None:
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise NotRun(f"ONNX Runtime cannot be imported ({error})") from None
    if plan.device == "cuda":
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            raise NotRun(f"onnxruntime {ort.__version__} is the CPU build; onnxruntime-gpu has the CUDA provider")
        ort.preload_dlls()
        torch.cuda.set_stream(torch.cuda.Stream())  # not the default one: it cannot be captured
    expected = logits_of(work, options.px)
    for runtime, settings in _VARIANTS.items():
        sessions: dict[str, Any] = {}
        for name in GRAPH_NETS:
            row = {"kind": "inference", "runtime": runtime, "net": name, "px": options.px}
            path = work / f"{name}-{options.px}.onnx"
            try:
                if not path.exists():
                    raise NotRun("there is no graph; see the step 'graphs'")
                sessions[name] = _session(ort, path, settings, plan)
            except NotRun as error:
                emit(**row, batch=0, status=f"not run: {error}")
            except Exception as error:
                emit(**row, batch=0, status=f"failed: {reason(error)}")
        for batch in plan.batches:
            _batch(ort, runtime, sessions, batch, expected, plan, work, options.px)


def _session(ort: Any, path: Path, settings: dict[str, str], plan: Plan) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if plan.device == "cpu":
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    cuda = {
        "device_id": "0",
        "user_compute_stream": str(torch.cuda.current_stream().cuda_stream),
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "cudnn_conv_use_max_workspace": "1",
        **settings,
    }
    session = ort.InferenceSession(path, options, providers=[("CUDAExecutionProvider", cuda), "CPUExecutionProvider"])
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise RuntimeError("the CUDA provider did not start; ONNX Runtime fell back to the CPU")
    return session


def _batch(ort, runtime, sessions, batch, expected, plan, work, px) -> None:  # type: ignore[no-untyped-def]
    buffers = buffers_of(plan, work, px, batch)
    calls, rows, outputs = {}, {}, {}  # a binding holds addresses alone: outputs must live as long as the calls
    for name, session in sessions.items():
        row = {"kind": "inference", "runtime": runtime, "net": name, "px": px, "batch": batch}
        try:
            logits = outputs[name] = torch.zeros((batch, plan.classes), dtype=torch.float32, device=plan.device)
            make = _replays if runtime == "onnxruntime-graph" else _bound
            calls[name] = make(ort, session, buffers, logits, plan)
            calls[name][0]()
            if plan.device == "cuda":
                torch.cuda.synchronize()
            rows[name] = {**row, **agreement(logits, expected[name.removesuffix("-folded")])}
        except Exception as error:
            calls.pop(name, None)
            emit(**row, status=f"failed: {reason(error)}")
    for name, ms in measure(calls, plan.seconds, plan.device).items():
        emit(**rows[name], status="ok", ms=ms)


def _binding(session: Any, images: torch.Tensor, logits: torch.Tensor, plan: Plan) -> Any:
    binding = session.io_binding()
    binding.bind_input("image", plan.device, 0, np.uint8, tuple(images.shape), images.data_ptr())
    binding.bind_output("logits", plan.device, 0, np.float32, tuple(logits.shape), logits.data_ptr())
    return binding


def _run_options(ort: Any, graph: str) -> Any:
    options = ort.RunOptions()
    # Otherwise every run waits for the stream, and the events would measure the host.
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    # Always: without this entry, release 1.31 raises and catches an exception in every run.
    options.add_run_config_entry("gpu_graph_id", graph)
    return options


def _bound(ort: Any, session: Any, buffers: list[torch.Tensor], logits: torch.Tensor, plan: Plan) -> list[Call]:
    options = _run_options(ort, _NO_GRAPH)
    bindings = [_binding(session, images, logits, plan) for images in buffers]
    return [lambda binding=binding: session.run_with_iobinding(binding, options) for binding in bindings]


def _replays(ort: Any, session: Any, buffers: list[torch.Tensor], logits: torch.Tensor, plan: Plan) -> list[Call]:
    """One captured graph per batch size; it reads a fixed buffer, into which the input is copied on the device."""
    fixed = buffers[0].clone()
    options, binding = _run_options(ort, str(len(fixed))), _binding(session, fixed, logits, plan)

    def call(images: torch.Tensor) -> None:
        fixed.copy_(images)
        session.run_with_iobinding(binding, options)

    return [lambda images=images: call(images) for images in buffers]


if __name__ == "__main__":
    run(step)
