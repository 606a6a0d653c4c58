"""What ONNX Runtime's CUDA provider should be told for this network, by measuring.

    python benchmarks/gpu/onnxruntime_settings.py OUT.json     (PYTHONPATH: the repository's root)

The folded graph in FP32 and FP16, in the product's own session, with and without TF32, channels last and a CUDA graph,
beside PyTorch's export of the network as trained with ONNX Runtime's defaults.  All take turns, host memory to host
memory; `device_ms` is between two CUDA events.  `error` is the largest difference from float32 logits over their range.
Weights are random, with calibrated batch norms and gates.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from networks import Plan, TypedExported, calibrate, coloured_images, fresh, spec_of

from samdeploy.backends.device.cuda import device_zero
from samdeploy.backends.device.objects import Stream
from samdeploy.backends.device.session import DeviceSession
from samdeploy.backends.onnxruntime.cuda import CudaEngine
from samdeploy.bench.alternatives.pytorch import export_module
from samdeploy.bundle.spec import ModelSpec
from samdeploy.export.fp16.convert import fp16_graph
from samdeploy.graphs.edit import serialize
from samdeploy.models import Exported
from samdeploy.models.sam_resnet.fold import fold
from samdeploy.models.sam_resnet.onnx import graph_from_model

CASES = ((18, 32, 10, (1, 64)), (50, 192, 100, (1, 8, 64)))  # layers, pixels, classes, batches
ROUNDS, RUNS = 7, 8
EXACT = {"use_tf32": "0"}
LAST = {"prefer_nhwc": "1"}


def main() -> None:
    out = Path(sys.argv[1])
    ort.preload_dlls()
    rows: list[dict[str, Any]] = []
    for depth, px, classes, batches in CASES:
        rows += _case(depth, px, classes, batches)
        out.write_text(json.dumps(rows, indent=1) + "\n")


def _case(depth: int, px: int, classes: int, batches: tuple[int, ...]) -> list[dict[str, Any]]:
    plan = Plan(depth, classes, (px,), batches, 2, 0.3, 128, "cuda", "fp16")
    torch.manual_seed(0)
    net = calibrate(fresh(plan, "sam"), [coloured_images(64, px, 7)], "cuda").cpu()
    spec = spec_of(plan, px)
    folded = fold(net)
    graph = graph_from_model(folded, spec)
    fp32, fp16 = serialize(graph), serialize(fp16_graph(graph))
    example = coloured_images(2, px, 0).numpy()
    trained = export_module(Exported(net, spec).eval(), example)
    trained16 = export_module(TypedExported(net, plan, px).eval(), example)
    runs: dict[str, Any] = {
        "as trained fp32, TF32 (default)": _plain(trained, {}),
        "as trained fp32, no TF32": _plain(trained, EXACT),
        "as trained fp16": _plain(trained16, {}),
    }
    for name, graph, settings in (
        ("folded fp32", fp32, EXACT),
        ("folded fp32, channels last", fp32, {**EXACT, **LAST}),
        ("folded fp32, TF32", fp32, {}),
        ("folded fp16", fp16, {}),
        ("folded fp16, channels last", fp16, LAST),
        ("folded fp16, no TF32", fp16, EXACT),
    ):
        runs[name] = _session(graph, spec, settings, cuda_graph=False)
        runs[f"{name}, CUDA graph"] = _session(graph, spec, settings, cuda_graph=True)
    rows = []
    for batch in batches:
        images = coloured_images(batch, px, 3).numpy()
        with torch.inference_mode():
            expected = Exported(net, spec).eval()(torch.tensor(images)).numpy()
        for row in _turns(runs, images, expected):
            rows.append({"depth": depth, "px": px, "batch": batch, **row})
            print(json.dumps(rows[-1]), flush=True)
    for run in runs.values():
        if isinstance(run, DeviceSession):
            run.close()
    return rows


def _turns(runs: dict[str, Any], images: np.ndarray, expected: np.ndarray) -> list[dict[str, Any]]:
    calls = {name: run.run if isinstance(run, DeviceSession) else run for name, run in runs.items()}
    errors = {}
    for name, call in calls.items():
        for _ in range(4):  # kernels are chosen, a graph is recorded
            logits = call(images)
        errors[name] = float(np.abs(logits - expected).max() / np.ptp(expected))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(RUNS):
                call(images)
            times[name].append((time.perf_counter() - start) / RUNS * 1e3)
    return [
        {
            "variant": name,
            "ms": statistics.median(found),
            "min": min(found),
            "max": max(found),
            "device_ms": _device_ms(runs[name], images),
            "error": errors[name],
        }
        for name, found in times.items()
    ]


def _device_ms(run: Any, images: np.ndarray) -> float | None:
    if not isinstance(run, DeviceSession):
        return None
    return statistics.median(run.device_ms(images) for _ in range(ROUNDS))


def _session(graph: bytes, spec: ModelSpec, settings: dict[str, str], *, cuda_graph: bool) -> DeviceSession:
    with device_zero():
        stream = Stream()
        inference = _inference(graph, {**settings, "user_compute_stream": str(stream.handle)})
        engine = CudaEngine(inference, spec)
        return DeviceSession("onnxruntime", "fp32", spec, engine, stream, cuda_graph=cuda_graph)


def _plain(graph: bytes, settings: dict[str, str]) -> Callable[[np.ndarray], np.ndarray]:
    inference = _inference(graph, settings)
    return lambda images: inference.run(None, {"image": images})[0]


def _inference(graph: bytes, settings: dict[str, str]) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(graph, options, providers=[("CUDAExecutionProvider", settings), "CPUExecutionProvider"])


if __name__ == "__main__":
    main()
