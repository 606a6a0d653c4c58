"""TensorRT, or TensorRT-RTX where that is all there is, on the FP16 graphs.

One engine per network and size, with one profile per batch size, so that each batch is tuned for.
"""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path
from typing import Any

import torch
from child import NotRun, emit, reason, run
from networks import GRAPH_NETS, Plan, buffers_of, logits_of
from timing import Call, agreement, measure


def step(plan: Plan, work: Path, options: argparse.Namespace) -> None:
    trt = _package()
    if plan.device != "cuda":
        raise NotRun("a rehearsal has no GPU, and TensorRT's Runtime kills the process without one")
    torch.zeros(1, device="cuda")
    log = _log(trt)
    runtime = trt.Runtime(log)
    for px in plan.sizes:
        engines = {}
        for name in GRAPH_NETS:
            row = {"kind": "inference", "runtime": trt.__name__, "net": name, "px": px}
            path = work / f"{name}-{px}.onnx"
            if not path.exists():
                emit(**row, batch=0, status="not run: there is no graph; see the step 'graphs'")
                continue
            try:
                begun = time.monotonic()
                engines[name] = (_engine(trt, log, runtime, path, sorted(plan.batches)), time.monotonic() - begun)
            except NotRun:
                raise
            except Exception as error:
                emit(**row, batch=0, status=f"failed: {reason(error)}")
        for batch in plan.batches:
            _batch(trt, engines, batch, plan, work, px)


def _package() -> Any:
    reasons = []
    for name in ("tensorrt", "tensorrt_rtx"):
        try:
            return importlib.import_module(name)
        except (ImportError, OSError) as error:
            reasons.append(f"{name}: {error}")
    raise NotRun("; ".join(reasons))


def _log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

    return Log()


def _engine(trt: Any, log: Any, runtime: Any, path: Path, batches: list[int]) -> Any:
    strong = 0
    if trt.__name__ == "tensorrt" and int(trt.__version__.split(".")[0]) < 11:
        strong = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    builder = trt.Builder(log)
    network = builder.create_network(strong)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(path.read_bytes()):
        raise RuntimeError("; ".join(parser.get_error(i).desc() for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    if trt.__name__ == "tensorrt_rtx":
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.CURRENT, 0)
    shape = tuple(network.get_input(0).shape)[1:]
    for batch in batches:
        profile = builder.create_optimization_profile()
        profile.set_shape("image", *((batch, *shape),) * 3)
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError(f"no plan: {'; '.join(log.errors)}")
    if hasattr(runtime, "get_engine_validity"):
        # On a GPU that TensorRT-RTX does not know, the build succeeds and only this, or opening the plan, says so.
        validity, diagnostics = runtime.get_engine_validity(bytes(plan))
        if validity == trt.EngineValidity.INVALID:
            codes = trt.EngineInvalidityDiagnostics.__members__.items()
            named = ", ".join(name for name, code in codes if diagnostics & int(code))
            runtime.deserialize_cuda_engine(bytes(plan))  # for its words
            raise NotRun(f"{trt.__name__} {trt.__version__} refuses this GPU ({named}): {log.errors[-1]}")
    engine = runtime.deserialize_cuda_engine(bytes(plan))
    if engine is None:
        raise RuntimeError(f"the plan cannot be opened: {'; '.join(log.errors)}")
    return engine


def _batch(trt: Any, engines: dict[str, Any], batch: int, plan: Plan, work: Path, px: int) -> None:
    expected, buffers = logits_of(work, px), buffers_of(plan, work, px, batch)
    calls: dict[str, list[Call]] = {}
    rows, outputs = {}, {}  # a context holds addresses alone: outputs must live as long as the calls
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for name, (engine, seconds) in engines.items():
            row = {"kind": "inference", "runtime": trt.__name__, "net": name, "px": px, "batch": batch}
            try:
                logits = outputs[name] = torch.zeros((batch, plan.classes), dtype=torch.float32, device="cuda")
                calls[name] = _calls(engine, sorted(plan.batches).index(batch), buffers, logits, stream)
                calls[name][0]()
                stream.synchronize()
                rows[name] = {**row, **agreement(logits, expected[name.removesuffix("-folded")])}
                rows[name]["build_seconds"] = round(seconds, 1)
            except Exception as error:
                calls.pop(name, None)
                emit(**row, status=f"failed: {reason(error)}")
        for name, ms in measure(calls, plan.seconds, "cuda").items():
            emit(**rows[name], status="ok", ms=ms)


def _calls(engine: Any, profile: int, buffers: list[torch.Tensor], logits: torch.Tensor, stream: Any) -> list[Call]:
    calls: list[Call] = []
    for images in buffers:  # a context per buffer: setting an address anew would be timed too
        context = engine.create_execution_context()
        if context is None or not context.set_optimization_profile_async(profile, stream.cuda_stream):
            raise RuntimeError("no execution context for this batch")
        context.set_input_shape("image", tuple(images.shape))
        context.set_tensor_address("image", images.data_ptr())
        context.set_tensor_address("logits", logits.data_ptr())

        def call(context: Any = context) -> None:
            if not context.execute_async_v3(stream.cuda_stream):
                raise RuntimeError("execute_async_v3 gave False")

        calls.append(call)
    return calls


if __name__ == "__main__":
    run(step)
