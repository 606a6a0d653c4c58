"""An engine from an ONNX graph, with TensorRT 10.12 and later or TensorRT-RTX.

The network is strongly typed: every layer computes in the type that the graph states, so the precision is the graph's
and cannot change silently.  What the parser made of it is counted before the build, and the engine is opened and
inspected after it where a GPU is there that can.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from samdeploy.backends.device.cuda import Device, cuda_devices, describe_device, device_zero
from samdeploy.backends.tensorrt.library import create, error_lines, error_log, version_numbers
from samdeploy.backends.tensorrt.session import CURRENT, describe_engine, engine_tensors, open_plan
from samdeploy.errors import BackendUnavailable, ExportError, InputError, unknown
from samdeploy.export.tensorrt.build_monitor import Advance, build_plan
from samdeploy.export.tensorrt.build_target import build_targets, builder_package
from samdeploy.export.tensorrt.precision_proof import (
    TYPES,
    EngineProof,
    HeavyLayer,
    check_engine_precision,
    check_graph_precision,
    heavy_layers,
)
from samdeploy.export.tensorrt.timing_cache import TimingCache

ENGINES = ("trt", "trt-rtx")


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """An engine and what it depends on.

    Attributes:
        plan: the serialised engine, as TensorRT wrote it.
        built_for: runtime ("tensorrt" or "tensorrt_rtx"), version, target ("SM86", several as "SM86+SM89", or
            "current"), batch ("min,opt,max"), gpu, capability and driver of the building machine (empty without a
            GPU), and precision_proof: "engine" where the engine inspector showed the layers' types, "graph" where
            only the strongly typed network could be counted.
        note: for people: which package built it, for what, and whether it could be opened here.
    """

    plan: bytes
    built_for: dict[str, str]
    note: str


@dataclass(frozen=True, slots=True)
class _Settings:
    """What a build is asked for, checked."""

    precision: str
    batch: tuple[int, int, int]
    targets: tuple[str, ...]
    optimization_level: int
    workspace: int | None


def check_settings(batch: tuple[int, int, int], optimization_level: int, workspace: int | None) -> None:
    """Refuse what no build can be made with; see `build_engine`.

    Raises:
        InputError: naming the value and what is expected.
    """
    if not 1 <= batch[0] <= batch[1] <= batch[2]:
        found = ",".join(map(str, batch))
        raise InputError(f"batch: {found} found, 1 <= MIN <= OPT <= MAX expected")
    if not 0 <= optimization_level <= 5:
        raise InputError(f"optimization level: {optimization_level} found, 0 to 5 expected")
    if workspace is not None and workspace < 1:
        raise InputError(f"workspace: {workspace} MiB found, at least 1 expected")


def build_engine(
    graph: bytes,
    *,
    engine: str = "trt",
    precision: str = "fp16",
    batch: tuple[int, int, int] = (1, 8, 64),
    target: str | tuple[str, ...] | None = None,
    optimization_level: int = 3,
    workspace: int | None = None,
    progress: Advance | None = None,
) -> BuiltEngine:
    """Build an engine from the bytes of an ONNX file.

    Ctrl-C, or an exception from `progress`, ends the build at TensorRT's next step and leaves nothing behind.

    Args:
        graph: one input uint8 [N, H, W, 3] and one output float32 [N, K], N dynamic, layers typed in `precision`.
        engine: "trt" takes TensorRT where it is installed, else TensorRT-RTX; "trt-rtx" insists on the latter.
        precision: what the graph's layers must be in: fp16, fp32, bf16, or int8 (explicit Q/DQ).
        batch: smallest, usual and largest batch; TensorRT tunes for the usual one.
        target: TensorRT-RTX only: compute capabilities such as "SM86", or "current" for the GPU here.  Several, as a
            tuple or as "SM86+SM89", make one plan that runs on each of them; it holds the weights once, so it is
            hardly larger.  None means the GPU here, and where there is none SM86.
        optimization_level: 0 (fast build) to 5 (fast engine).
        workspace: scratch memory that a layer may use, in MiB; None leaves it to TensorRT.
        progress: called with (steps, phase) as the build goes on, from another thread; the number of steps is not
            known beforehand.

    Raises:
        InputError: an argument is unknown or impossible.
        BackendUnavailable: no package, no GPU where one is needed, or one that the package does not run on.
        ExportError: the graph is damaged, not of this precision or interface, TensorRT cannot build it, or the
            engine cannot be opened where it must run.
    """
    if engine not in ENGINES:
        raise InputError(unknown("engine", engine, ENGINES))
    if precision not in TYPES:
        raise InputError(unknown("engine precision", precision, TYPES))
    check_settings(batch, optimization_level, workspace)
    trt = builder_package(engine)
    device = describe_device() if cuda_devices()[0] else None
    targets = build_targets(trt, target, device)
    settings = _Settings(precision, batch, targets, optimization_level, workspace)
    timings = TimingCache(trt, device)
    here = device is not None and (device.capability in targets or targets == (CURRENT,))
    with _on(device):
        plan, layers = _build(trt, graph, settings, timings, progress)
        proof = _check_plan(trt, plan, layers, precision, batch[1]) if here else None

    version = version_numbers(trt.__version__)
    goal = f"{device.name} ({device.capability})" if device and targets == (CURRENT,) else ", ".join(targets)
    counted = check_graph_precision(layers, precision)
    notes = [
        f"built by {trt.__name__.replace('_', '-')} {version} for {goal}, {counted}, batch {batch[0]} to {batch[2]}",
        proof.note if proof else "built, not run here",
        timings.note,
    ]
    return BuiltEngine(
        plan=plan,
        built_for={
            "runtime": trt.__name__,
            "version": version,
            "target": "+".join(targets),
            "batch": ",".join(map(str, batch)),
            "gpu": device.name if device else "",
            "capability": device.capability if device else "",
            "driver": device.driver if device else "",
            "precision_proof": "engine" if proof and proof.confirmed else "graph",
        },
        note="; ".join(filter(None, notes)),
    )


def _on(device: Device | None) -> AbstractContextManager[None]:
    """Build on device 0, which `device` describes, whichever device the caller has chosen for its own work."""
    return device_zero() if device else nullcontext()


def _build(
    trt: Any, graph: bytes, settings: _Settings, timings: TimingCache, progress: Advance | None
) -> tuple[bytes, list[HeavyLayer]]:
    """The plan, and the layers that it was built from."""
    log, lines = error_log(trt), error_lines(trt)
    builder = create(trt, "Builder", log)
    network = builder.create_network(_network_flags(trt))
    parser = create(trt, "OnnxParser", network, log)  # owns the weights: it must live until the plan is there
    if not parser.parse(graph):
        problems = [_parser_error(parser.get_error(i)) for i in range(parser.num_errors)]
        raise ExportError(
            f"TensorRT cannot read the ONNX graph: {'; '.join(problems) or lines.report()}; export it again"
        )
    shape = _check_interface(trt, network)
    layers = heavy_layers(trt, network)
    check_graph_precision(layers, settings.precision)  # before minutes are spent

    config = builder.create_builder_config()
    config.builder_optimization_level = settings.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # what the inspector needs to name types
    config.max_aux_streams = 0  # one stream is fastest for a chain of layers, and needed for its CUDA graph
    # FP32 layers are there because they need FP32; TF32, on by default, keeps 10 bits of mantissa of 23.
    config.clear_flag(trt.BuilderFlag.TF32)
    if settings.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace << 20)
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # else a CUDA graph may not be recordable
    if trt.__name__ == "tensorrt_rtx":
        config.num_compute_capabilities = len(settings.targets)
        for index, name in enumerate(settings.targets):
            capability = trt.ComputeCapability.__members__["CURRENT" if name == CURRENT else name]
            config.set_compute_capability(capability, index)
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, *((count, *shape) for count in settings.batch))
    config.add_optimization_profile(profile)

    timings.load_into(config)
    plan = build_plan(trt, builder, network, config, progress)
    if plan is None:
        why = lines.report()
        # Seen with TensorRT-RTX 1.7 for SM75, where the head is FP32 in fp32 and int8 engines.
        cure = "; build --precision fp16 for that GPU" if "FP32 GEMM is not supported" in why else ""
        raise ExportError(f"TensorRT cannot build an engine for {'+'.join(settings.targets)}: {why}{cure}")
    timings.keep(config)
    return bytes(plan), layers


def _network_flags(trt: Any) -> int:
    """Flags of a strongly typed network: the only kind since TensorRT 11 and in TensorRT-RTX, a flag before."""
    if trt.__name__ == "tensorrt_rtx" or int(trt.__version__.split(".")[0]) >= 11:
        return 0
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _parser_error(error: Any) -> str:
    text = " ".join(error.desc().split())
    node = error.node_name()
    return f"node {node!r} ({error.node_operator()}): {text}" if node else text


def _check_interface(trt: Any, network: Any) -> tuple[int, ...]:
    """Height, width and channels of the only input, after names and types were checked.

    Bytes that are no ONNX file at all can parse as an empty network, so this is the check that finds them.
    """
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    found = [f"{t.name} {t.dtype.name} {list(t.shape)}" for t in (*inputs, *outputs)]
    fits = (
        [(t.name, t.dtype, len(t.shape)) for t in inputs] == [("image", trt.uint8, 4)]
        and [(t.name, t.dtype, len(t.shape)) for t in outputs] == [("logits", trt.float32, 2)]
        and inputs[0].shape[0] < 0
        and min(inputs[0].shape[1:]) > 0
    )
    if not fits:
        raise ExportError(
            f"the graph's tensors are {'; '.join(found) or 'none (empty or not an ONNX file)'}; "
            "image UINT8 [-1, H, W, 3] and logits FLOAT [-1, K] expected"
        )
    return tuple(inputs[0].shape[1:])


def _check_plan(trt: Any, plan: bytes, layers: list[HeavyLayer], precision: str, batch: int) -> EngineProof:
    """Open a fresh engine where it must run, since what cannot be opened must not be written."""
    try:
        runtime, engine = open_plan(trt, plan, "the engine that was just built")
    except BackendUnavailable as error:
        raise ExportError(str(error)) from None
    found = [(tensor.name, tensor.dtype, tensor.shape[0]) for tensor in engine_tensors(trt, engine)]
    if found != [("image", "uint8", "N"), ("logits", "float32", "N")]:
        raise ExportError(f"the engine's tensors are {found}; image uint8 and logits float32 with a dynamic N expected")
    information = describe_engine(trt, engine, batch)
    del engine, runtime  # in this order: TensorRT wants engines gone before their runtime
    return check_engine_precision(information, layers, precision)
