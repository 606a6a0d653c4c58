"""The engines of a bundle: built, tried where they can run, or carried over from an earlier export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from samdeploy.backends import open_session
from samdeploy.backends.golden import check_golden
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.bundle.manifest import BundleFile
from samdeploy.bundle.names import MANIFEST
from samdeploy.bundle.spec import ENGINES, PRECISIONS
from samdeploy.errors import BackendUnavailable, BundleError, ExportError, InputError, check_name
from samdeploy.export.pack import BundleWriter
from samdeploy.export.tensorrt.build import build_engine, check_settings
from samdeploy.export.tensorrt.build_target import check_target
from samdeploy.progress import progress_bar

# What an engine is built in where the user says nothing: FP16 is what TensorRT is there for; CPUs compute in FP32.
DEFAULT_PRECISION = {"trt": "fp16", "trt-rtx": "fp16", "onnxruntime": "fp32", "openvino": "fp32"}

_TENSORRT = ("trt", "trt-rtx")

State = Literal["verified", "built", "not built", "failed"]
# Why a graph could not be had, by precision and by the backend it would have been for (None: all).
NoGraph = Mapping[tuple[str, str | None], ExportError]


@dataclass(frozen=True, slots=True)
class EngineRow:
    """What became of one engine.

    Attributes:
        engine: one of `ENGINES` but "all".
        precision: of its arithmetic.
        path: its file in the bundle; "" where there is none.
        bytes: length of that file.
        state: "verified" (ran the golden images here), "built" (could not run here), "not built" (nothing here builds
            it), "failed" (building failed).
        note: the difference found, or the reason.
    """

    engine: str
    precision: str
    path: str
    bytes: int
    state: State
    note: str


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to build.

    Attributes:
        engine: one of `ENGINES`.
        precision: of the engines; None takes fp16 for TensorRT and fp32 for the others.
        batch: smallest, most likely and largest batch of a TensorRT engine.
        target: GPU generations that TensorRT-RTX builds for, such as "SM86", or "SM86+SM89" for one engine that runs
            on both; None: the GPU here, or SM86.
        optimization_level: 0 to 5; at a higher one TensorRT spends more time for a faster engine.
        workspace: scratch memory of a TensorRT build, in MiB; None leaves its default.
        max_drop: points of validation top-1 that int8 may cost.
        data_root: where the data set lies; None: where training found it.
        small: whether the FP16 graph, with the head-room that it was planned by, is left out unless an FP16 engine is
            asked for by name.
        reject_error: percentage of wrong ones among accepted answers that the bundle's threshold keeps; None: the
            bundle rejects no answer.
        cam: whether the graph of class activation maps is written too; it is as large as the FP32 graph.

    Raises:
        InputError: unknown names, or numbers out of range.
    """

    engine: str = "all"
    precision: str | None = None
    batch: tuple[int, int, int] = (1, 8, 64)
    target: str | None = None
    optimization_level: int = 3
    workspace: int | None = None
    max_drop: float = 0.5
    data_root: Path | None = None
    cam: bool = True
    reject_error: float | None = None
    small: bool = False

    def __post_init__(self) -> None:
        check_name("engine", self.engine, ENGINES)
        if self.precision is not None:
            check_name("precision", self.precision, PRECISIONS)
        check_settings(self.batch, self.optimization_level, self.workspace)
        if self.target is not None:
            check_target("trt" if self.engine == "all" else self.engine, self.target)


def wants_fp16(options: ExportOptions) -> bool:
    """Whether the FP16 graph is written: always, but in a small bundle only where its engine is asked for by name."""
    named = [
        options.precision or DEFAULT_PRECISION[engine] for engine, named in wanted_engines(options.engine) if named
    ]
    return not options.small or options.precision == "fp16" or "fp16" in named


def graph_backend(engine: str, precision: str) -> str | None:
    """Which backend's own form of a graph an engine is made from; None where one form serves all."""
    return "tensorrt" if precision == "int8" and engine in ("trt", "trt-rtx") else None


def wanted_engines(engine: str) -> Iterator[tuple[str, bool]]:
    """Engines to build, and whether the user named them."""
    if engine == "all":
        yield from (("onnxruntime", False), ("openvino", False), ("trt", False))
    else:
        yield engine, True


def add_engine(
    writer: BundleWriter, engine: str, options: ExportOptions, *, named: bool, no_graph: NoGraph
) -> Iterator[EngineRow]:
    precision = options.precision or DEFAULT_PRECISION[engine]
    try:
        missing = no_graph.get((precision, graph_backend(engine, precision)))
        if missing is not None:
            raise missing
        if engine in _TENSORRT:
            yield _build_tensorrt(writer, engine, precision, options)
        else:
            yield _try_graph(writer, engine, precision)
    except (BackendUnavailable, ExportError, InputError) as error:
        # With "all", a precision that ONNX Runtime or OpenVINO never has costs one row; a wrong batch or target of
        # a TensorRT engine is a mistake whatever else is built.
        if named or (isinstance(error, InputError) and engine in _TENSORRT):
            raise
        state: State = "failed" if isinstance(error, ExportError) else "not built"
        yield EngineRow(engine, precision, "", 0, state, str(error))


def _try_graph(writer: BundleWriter, engine: str, precision: str) -> EngineRow:
    """ONNX Runtime and OpenVINO compile the graph when they open it: trying it is all there is to do."""
    bundle = writer.bundle()
    # OpenVINO computes BF16 from the FP32 graph.
    file = bundle.find("graph", backend=engine, precision="fp32" if precision == "bf16" else precision)
    if file is None:
        raise ExportError(f"no {precision} graph can be made by this version; expected one of {', '.join(PRECISIONS)}")
    state, note = _try(bundle, engine, precision)
    return EngineRow(
        engine, precision, file.path, file.bytes, state, note if state == "verified" else f"not run here: {note}"
    )


def _build_tensorrt(writer: BundleWriter, engine: str, precision: str, options: ExportOptions) -> EngineRow:
    bundle = writer.bundle()
    graph = bundle.find("graph", backend="tensorrt", precision=precision)
    if graph is None:
        raise ExportError(f"no {precision} graph can be made by this version; expected one of fp32, fp16, int8")
    with progress_bar("building engine", None) as advance:
        built = build_engine(
            bundle.read(graph),
            engine=engine,
            precision=precision,
            batch=options.batch,
            target=options.target,
            optimization_level=options.optimization_level,
            workspace=options.workspace,
            progress=advance,
        )
    built_for = {**built.built_for, "graph": graph.sha256}
    file = writer.add(
        "engine",
        engine_path(built_for, precision),
        built.plan,
        backend="tensorrt",
        precision=precision,
        built_for=built_for,
    )
    state, note = _try(writer.bundle(), "tensorrt", precision)
    return EngineRow(engine, precision, file.path, file.bytes, state, f"{built.note}; {note}")


def engine_path(built_for: dict[str, str], precision: str) -> str:
    """One file per runtime, target and precision, for example "engines/tensorrt_rtx-SM86-fp16.plan"."""
    return f"engines/{built_for['runtime']}-{built_for['target']}-{precision}.plan"


def _try(bundle: Bundle, backend: str, precision: str) -> tuple[State, str]:
    """Open the engine and run the golden images, where this machine can."""
    try:
        with open_session(bundle, backend, precision=precision, check=False) as session:
            error = check_golden(session, *bundle.golden())
            return "verified", f"golden images within {error:.1e} of the logits' range, on {session.device}"
    except BackendUnavailable as error:
        return "built", str(error)
    except BundleError as error:
        raise ExportError(str(error)) from None


def keep_engines(writer: BundleWriter, old: Path) -> Iterator[EngineRow]:
    """Carry over engines that an earlier export built from the very same graph."""
    if not (old / MANIFEST).exists():
        return
    try:
        before = open_bundle(old)
    except BundleError:
        return  # a damaged bundle is what a new export is there to replace
    _keep_int8(writer, before)
    here = writer.bundle()
    graphs = {file.sha256 for file in here.select("graph")}
    taken = {file.path for file in here.files}
    for file in before.select("engine"):
        if file.built_for.get("graph") in graphs and file.path not in taken and _copy(writer, before, file):
            note = "kept from an earlier export of this graph"
            yield EngineRow("trt", file.precision or "", file.path, file.bytes, "built", note)


def _keep_int8(writer: BundleWriter, before: Bundle) -> None:
    """Carry over what was quantised from the very same FP32 graph."""
    here = writer.bundle()
    fp32, fp32_before = (bundle.find("graph", precision="fp32") for bundle in (here, before))
    if fp32 is None or fp32_before is None or fp32.sha256 != fp32_before.sha256:
        return
    taken = {file.path for file in here.files}
    for file in (*before.select("graph", precision="int8"), *before.select("quantization")):
        if file.path not in taken:
            _copy(writer, before, file)


def _copy(writer: BundleWriter, before: Bundle, file: BundleFile) -> bool:
    """Copy a file of another bundle; says whether it was sound."""
    try:
        content = before.read(file)
    except BundleError:
        return False
    writer.add(
        file.role,
        file.path,
        content,
        backend=file.backend,
        precision=file.precision,
        built_for=file.built_for,
    )
    return True
