"""An engine from an ONNX graph, with TensorRT 10.12 and later or TensorRT-RTX.

The network is strongly typed: every layer computes in the type that the graph states, so the precision is the graph's
and cannot change silently.  What the parser made of it is counted before the build.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from samdeploy.backends.cuda import Device, cuda_devices, describe_device
from samdeploy.backends.tensorrt import CURRENT, RUNTIMES, engine_tensors, error_log, import_runtime
from samdeploy.errors import BackendUnavailable, ExportError, InputError, unknown
from samdeploy.spec import TensorSpec

ENGINES = ("trt", "trt-rtx")

# Where there is no GPU an engine must be built for a named one; the original work ran on an RTX A4000, which is SM86.
DEFAULT_TARGET = "SM86"

# The type of arithmetic, by the name of TensorRT's DataType.
_TYPES = {"fp16": "HALF", "fp32": "FLOAT", "bf16": "BF16"}

# Called with (steps, what is being done) as the build goes on; `samdeploy.progress` yields one.
Advance = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """An engine and what it depends on.

    Attributes:
        plan: the serialised engine, as TensorRT wrote it.
        built_for: runtime ("tensorrt" or "tensorrt_rtx"), version, target ("SM86" or "current"), batch
            ("min,opt,max"), gpu, capability and driver of the building machine (empty without a GPU).
        note: for people: which package built it, for what, and whether it could be opened here.
    """

    plan: bytes
    built_for: dict[str, str]
    note: str


def build_engine(
    graph: bytes,
    *,
    engine: str = "trt",
    precision: str = "fp16",
    batch: tuple[int, int, int] = (1, 8, 64),
    target: str | None = None,
    optimization_level: int = 3,
    workspace: int | None = None,
    progress: Advance | None = None,
) -> BuiltEngine:
    """Build an engine from the bytes of an ONNX file.

    Args:
        graph: one input uint8 [N, H, W, 3] and one output float32 [N, K], N dynamic, layers typed in `precision`.
        engine: "trt" takes TensorRT where it is installed, else TensorRT-RTX; "trt-rtx" insists on the latter.
        precision: what the graph's layers must be in: fp16, fp32 or bf16.
        batch: smallest, usual and largest batch; TensorRT tunes for the usual one.
        target: a compute capability such as "SM86", or "current" for the GPU here; TensorRT-RTX only.  None means
            the GPU here, and where there is none `DEFAULT_TARGET`.
        optimization_level: 0 (fast build) to 5 (fast engine).
        workspace: scratch memory that a layer may use, in MiB; None leaves it to TensorRT.
        progress: called as the build goes on.

    Raises:
        InputError: an argument is unknown or impossible.
        BackendUnavailable: no package, or no GPU where one is needed.
        ExportError: the graph is damaged, not of this precision or interface, or TensorRT cannot build it.
    """
    if engine not in ENGINES:
        raise InputError(unknown("engine", engine, ENGINES))
    if precision not in _TYPES:
        raise InputError(unknown("engine precision", precision, _TYPES))
    if not 1 <= batch[0] <= batch[1] <= batch[2]:
        raise InputError(f"batch: {batch} found, 1 <= smallest <= usual <= largest expected")
    if not 0 <= optimization_level <= 5:
        raise InputError(f"optimization level: {optimization_level} found, 0 to 5 expected")
    if workspace is not None and workspace < 1:
        raise InputError(f"workspace: {workspace} MiB found, at least 1 expected")

    trt = _package(engine)
    device = describe_device() if cuda_devices()[0] else None
    target = _target(trt, target, device)
    plan, layers = _build(trt, graph, precision, batch, target, optimization_level, workspace, progress)
    opened = device is not None and target in (CURRENT, device.capability)
    if opened:
        _open(trt, plan)

    title = f"{trt.__name__.replace('_', '-')} {trt.__version__}"
    goal = f"{device.name} ({device.capability})" if device and target == CURRENT else target
    return BuiltEngine(
        plan=plan,
        built_for={
            "runtime": trt.__name__,
            "version": trt.__version__,
            "target": target,
            "batch": ",".join(map(str, batch)),
            "gpu": device.name if device else "",
            "capability": device.capability if device else "",
            "driver": device.driver if device else "",
        },
        note=f"built by {title} for {goal}, {layers} in {precision}, batch {batch[0]} to {batch[2]}"
        + ("" if opened else "; built, not run here"),
    )


def _package(engine: str) -> Any:
    """TensorRT or TensorRT-RTX, by the meaning of `engine`."""
    reasons = []
    for name in RUNTIMES if engine == "trt" else ("tensorrt_rtx",):
        try:
            return import_runtime(name)
        except BackendUnavailable as error:
            reasons.append(str(error))
    raise BackendUnavailable(f"no engine can be built: {'; '.join(reasons)}")


def _target(trt: Any, target: str | None, device: Device | None) -> str:
    """What to build for: a compute capability, or `CURRENT`."""
    if trt.__name__ == "tensorrt":
        if device is None:
            raise BackendUnavailable(
                f"TensorRT builds on the GPU that will run the engine, and there is none here: {cuda_devices()[1]}; "
                "build on that machine, or use --engine trt-rtx, which builds for a named GPU"
            )
        if target not in (None, CURRENT):
            raise InputError(
                f"target {target!r} found, but TensorRT builds for the GPU here alone ({device.capability}); "
                "named targets belong to --engine trt-rtx"
            )
        return CURRENT
    if target is None:
        return CURRENT if device else DEFAULT_TARGET
    known = [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    if target != CURRENT and target not in known:
        raise InputError(unknown("target", target, [CURRENT, *known]))
    if target == CURRENT and device is None:
        raise BackendUnavailable(
            f"target {CURRENT!r} needs a GPU here: {cuda_devices()[1]}; name one: {', '.join(known)}"
        )
    return target


def _build(
    trt: Any,
    graph: bytes,
    precision: str,
    batch: tuple[int, int, int],
    target: str,
    optimization_level: int,
    workspace: int | None,
    progress: Advance | None,
) -> tuple[bytes, str]:
    """The plan, and how many layers compute in `precision` ("21 of 21 layers")."""
    log = error_log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, log)  # owns the weights: it must live until the plan is there
    if not parser.parse(graph):
        problems = [_parser_error(parser.get_error(i)) for i in range(parser.num_errors)]
        raise ExportError(
            f"TensorRT cannot read the ONNX graph: {'; '.join(problems) or log.report()}; export it again"
        )
    shape = _check_interface(trt, network)
    layers = _check_precision(trt, network, precision)

    config = builder.create_builder_config()
    config.builder_optimization_level = optimization_level
    # FP32 layers are there because they need FP32; TF32, on by default, keeps 10 bits of mantissa of 23.
    config.clear_flag(trt.BuilderFlag.TF32)
    if workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace << 20)
    if trt.__name__ == "tensorrt_rtx":
        capability = "CURRENT" if target == CURRENT else target
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.__members__[capability], 0)
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, *((count, *shape) for count in batch))
    config.add_optimization_profile(profile)
    if progress is not None:
        config.progress_monitor = _monitor(trt, progress)

    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError(f"TensorRT cannot build an engine for {target}: {log.report()}")
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


def _check_precision(trt: Any, network: Any, precision: str) -> str:
    """Count the layers that compute in `precision`; what is neither that nor FP32 is an error, and so is none."""
    heavy = (trt.LayerType.CONVOLUTION, trt.LayerType.DECONVOLUTION, trt.LayerType.MATRIX_MULTIPLY)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    types = [(layer.name, layer.get_output(0).dtype.name) for layer in layers if layer.type in heavy]
    wanted = _TYPES[precision]
    fitting = [name for name, kind in types if kind == wanted]
    foreign = [f"{name} ({kind})" for name, kind in types if kind not in (wanted, "FLOAT")]
    if foreign or not fitting:
        shown = ", ".join(foreign[:3]) or f"all {len(types)} in {types[0][1] if types else 'no type'}"
        raise ExportError(
            f"{precision} was asked for, but the graph's layers are of another type: {shown}; "
            f"TensorRT keeps the types of the graph, so export the graph in {precision}"
        )
    return f"{len(fitting)} of {len(types)} layers"


def _monitor(trt: Any, progress: Advance) -> Any:
    """TensorRT's progress, passed on.  Its phases nest; each step of each phase counts one."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the base comes with the package, which has no types
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            progress(0, phase)

        def step_complete(self, phase: str, step: int) -> bool:
            progress(1, phase)
            return True  # False would cancel the build

        def phase_finish(self, phase: str) -> None:
            pass

    return Monitor()


def _open(trt: Any, plan: bytes) -> None:
    """Open a fresh engine once where there is a GPU: what cannot be opened must not be written."""
    log = error_log(trt)
    runtime = trt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise ExportError(f"the engine that was just built cannot be opened: {log.report()}")
    tensors: list[TensorSpec] = engine_tensors(trt, engine)
    found = [(t.name, t.dtype, t.shape[0]) for t in tensors]
    if found != [("image", "uint8", "N"), ("logits", "float32", "N")]:
        raise ExportError(f"the engine's tensors are {found}; image uint8 and logits float32 with a dynamic N expected")
