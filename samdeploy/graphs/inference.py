"""The one place that opens graphs with ONNX Runtime: for backends, numeric checks and measurements of an export.

>>> inference = open_inference(graph, Options(fp16=True))
>>> logits, maps = run_inference(inference, {"image": batch})
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from samdeploy.arrays import UInt8Array
from samdeploy.errors import SMALLER_BATCH, BackendUnavailable, first_line
from samdeploy.files import SealedFile

# In what it says where memory cannot be had, of its arena, of CUDA, of cuDNN and of cuBLAS.
_MEMORY_WORDS = ("Failed to allocate", "out of memory", "OUT_OF_MEMORY", "ALLOC_FAIL")

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


@dataclass(frozen=True, slots=True)
class Options:
    """How a graph is opened.

    Attributes:
        provider: `CPU` or `CUDA`; ONNX Runtime falls back from CUDA to the CPU on its own, see `device_of`.
        fp16: the graph computes in FP16, at least in part.
        optimized: False runs the graph node by node, as it is written.
        profile: prefix of the file that the profiler writes; None runs without it.
        quiet: print nothing where it fails: the exception has the same text.
        stream: handle of the CUDA stream that runs are queued on; None leaves it to ONNX Runtime.
    """

    provider: str = CPU
    fp16: bool = False
    optimized: bool = True
    profile: str | None = None
    quiet: bool = False
    stream: int | None = None


def open_inference(graph: SealedFile | bytes, options: Options = Options()) -> Any:
    """An `onnxruntime.InferenceSession`.

    Bytes are put into a `SealedFile` first: of a graph without a path, ONNX Runtime reads weights that are kept in
    other files from the working directory, which nobody has checked.

    Raises:
        BackendUnavailable: ONNX Runtime refuses the graph, or the memory is full.
    """
    if isinstance(graph, bytes):
        with SealedFile(graph) as sealed:
            return open_inference(sealed, options)
    settings = ort.SessionOptions()
    if options.profile is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = options.profile
    if not options.optimized:
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = (
        4 if options.quiet else 3
    )  # errors; its warnings about constant folding tell the user nothing
    # uint8 times int8 overflows 16 bits on CPUs without VNNI; this makes ONNX Runtime take slower kernels there.
    settings.add_session_config_entry("session.x64quantprecision", "1")
    # 1.30 and 1.31 die of SIGSEGV in this optimizer on some FP16 graphs; it serves FP32 convolutions on CPUs.
    off = ["NchwcTransformer"] if options.fp16 else []
    try:
        inference = ort.InferenceSession(graph.path, settings, providers=_providers(options), disabled_optimizers=off)
    except Exception as error:  # its exception classes are private and share no other base
        device = "cuda" if options.provider == CUDA else "cpu"
        cure = memory_full(error, device) or f"{first_line(error)}; export again, or pip install --upgrade onnxruntime"
        raise BackendUnavailable(f"ONNX Runtime {ort.__version__} cannot open the graph: {cure}") from error
    # Else it opens the path again, on the CPU and with a line of its own printed, where a run on CUDA fails.
    inference.disable_fallback()
    return inference


def device_of(inference: Any) -> str:
    """ "cuda" or "cpu": a CUDA provider whose libraries do not load is dropped with no more than a line in the log."""
    return "cuda" if inference.get_providers()[0] == CUDA else "cpu"


def run_inference(
    inference: Any, inputs: Mapping[str, NDArray[Any]], names: list[str] | None = None
) -> list[NDArray[np.floating]]:
    """Outputs as the graph stores them, in host memory, owned by the caller.

    Args:
        inference: from `open_inference`.
        inputs: the batch by the name of the graph's input, for graphs of bundles uint8 [N, H, W, 3].
        names: of the outputs; None means all, in the graph's order.

    Raises:
        BackendUnavailable: ONNX Runtime refuses the batch, or the memory is full.
    """
    try:
        found: list[NDArray[np.floating]] = inference.run(names, inputs)
        return found
    except Exception as error:  # as above
        why = memory_full(error, device_of(inference)) or first_line(error)
        batch = len(next(iter(inputs.values())))
        raise BackendUnavailable(f"ONNX Runtime failed on a batch of {batch}: {why}") from error


def run_graph(
    graph: bytes,
    batch: UInt8Array,
    options: Options = Options(),
) -> tuple[list[NDArray[np.floating]], str]:
    """Open a graph for one batch.

    Args:
        batch: uint8 [N, H, W, 3]; the graph's only input.

    Returns:
        Every output as the graph stores it, in its order, and where it ran: "cpu" or "cuda".

    Raises:
        BackendUnavailable: ONNX Runtime refuses the graph or the batch, or the memory is full.
    """
    inference = open_inference(graph, options)
    return run_inference(inference, {inference.get_inputs()[0].name: batch}), device_of(inference)


def memory_full(error: Exception, device: str) -> str:
    """What to do where the memory of "cpu" or "cuda" is full; "" where ONNX Runtime failed for another reason."""
    said = " ".join(str(error).split())
    if not any(word in said for word in _MEMORY_WORDS):
        return ""
    if device == "cuda":
        return SMALLER_BATCH
    return "the machine's memory is full: use a smaller batch, or end other programs here"


def _providers(options: Options) -> list[Any]:
    if options.provider != CUDA:
        return [CPU]
    if hasattr(ort, "preload_dlls"):  # since 1.21: finds the CUDA libraries that pip installed
        ort.preload_dlls()
    # FP32 must mean FP32: by default convolutions use TF32 on Ampere and later.  Not for FP16: the switch is cuDNN's,
    # and takes FP16 off the tensor cores too (15.2 instead of 6.9 ms: SAM-ResNet-50, 192 px, batch 64, H100).  The
    # layers that an FP16 graph keeps in FP32, for its range, lose no more in TF32 than the others.
    # Channels last is faster in FP16 (5.9 instead of 6.8 ms, as above) and slower in FP32 (22.7 instead of 19.2).
    settings = {"prefer_nhwc": "1"} if options.fp16 else {"use_tf32": "0"}
    if options.stream is not None:
        settings["user_compute_stream"] = str(options.stream)
    return [(CUDA, settings), CPU]
