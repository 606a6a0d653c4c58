"""`samdeploy export`: from a run directory to a bundle whose engines were tried where they can run."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import onnx
import torch

import samdeploy
from samdeploy.backends import open_session
from samdeploy.backends.session import Float32Array, UInt8Array, check_golden
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.data import open_dataset
from samdeploy.errors import BackendUnavailable, BundleError, ExportError, InputError, unknown
from samdeploy.export.check import BATCH_SIZES, check_graph
from samdeploy.export.onnx import GraphPrecision, graph_from_model, serialize
from samdeploy.export.pack import BundleWriter, staged
from samdeploy.export.tensorrt import Engine, build_engine
from samdeploy.manifest import MANIFEST, DataRecord
from samdeploy.models import Exported, FoldedResNet, build_model, fold, load_weights
from samdeploy.preprocess import resize
from samdeploy.run import BUNDLE_FOLDER, WEIGHTS_FILE, RunRecord, open_run
from samdeploy.spec import PRECISIONS, ModelSpec, model_spec

ENGINES = ("trt", "trt-rtx", "onnxruntime", "openvino", "all")
GRAPH_PRECISIONS: tuple[GraphPrecision, ...] = ("fp32", "fp16")
# What an engine is built in where the user says nothing: FP16 is what TensorRT is there for; CPUs compute in FP32.
_DEFAULT_PRECISION = {"trt": "fp16", "trt-rtx": "fp16", "onnxruntime": "fp32", "openvino": "fp32"}

# Golden pictures per bundle: enough for every batch size in BATCH_SIZES, and a few hundred kilobytes at 192 px.
GOLDEN_IMAGES = 8

State = Literal["verified", "built", "failed"]


@dataclass(frozen=True, slots=True)
class EngineRow:
    """What became of one engine.

    Attributes:
        engine: one of `ENGINES` but "all".
        precision: of its arithmetic.
        path: its file in the bundle; "" where there is none.
        bytes: length of that file.
        state: "verified" (ran the golden images here), "built" (could not run here), "failed" (was not built).
        note: the difference found, or the reason.
    """

    engine: str
    precision: str
    path: str
    bytes: int
    state: State
    note: str


@dataclass(frozen=True, slots=True)
class ExportResult:
    """Where the bundle lies and what stands in it."""

    bundle: Path
    parameters: int
    folded_parameters: int
    rows: tuple[EngineRow, ...]


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to build.

    Attributes:
        engine: one of `ENGINES`.
        precision: of the engines; None takes fp16 for TensorRT and fp32 for the others.
        batch: smallest, most likely and largest batch of a TensorRT engine.
        target: GPU generation that TensorRT-RTX builds for, such as "SM86"; None: the GPU here, or SM86.
        optimization_level: 0 to 5; at a higher one TensorRT spends more time for a faster engine.
        workspace: scratch memory of a TensorRT build, in MiB; None leaves its default.
        data_root: where the data set lies; None: where training found it.
    """

    engine: str = "all"
    precision: str | None = None
    batch: tuple[int, int, int] = (1, 8, 64)
    target: str | None = None
    optimization_level: int = 3
    workspace: int | None = None
    data_root: Path | None = None


def export_run(run_dir: Path, options: ExportOptions) -> ExportResult:
    """Fold, write graphs, build engines, try them, and put the bundle at `run_dir/bundle`.

    Engines of an earlier export of the same weights stay, unless they are built anew.  If anything that was asked
    for by name fails, the bundle that was there stays untouched.

    Raises:
        InputError: unknown engine or precision.
        BundleError: the run is damaged or of a newer version.
        WeightsError, DatasetError: weights or pictures cannot be read.
        ExportError: a graph or engine is not the trained network.
        BackendUnavailable: an engine that was asked for by name cannot be built here.
    """
    if options.engine not in ENGINES:
        raise InputError(unknown("engine", options.engine, ENGINES))
    if options.precision is not None and options.precision not in PRECISIONS:
        raise InputError(unknown("precision", options.precision, PRECISIONS))
    record = open_run(run_dir)
    spec = model_spec(record.arch, record.gate, record.classes, record.preprocessing)
    model = build_model(record.arch, len(record.classes), record.gate)
    load_weights(model, run_dir / WEIGHTS_FILE)
    model.eval()
    images = golden_images(record, options.data_root)
    with torch.inference_mode():
        logits: Float32Array = Exported(model, spec)(torch.from_numpy(images)).numpy()
    if not np.isfinite(logits).all():
        raise ExportError(f"{run_dir}: the trained network's own logits are not finite; train again")

    net = fold(model)
    target = run_dir / BUNDLE_FOLDER
    with staged(target) as stage:
        writer = BundleWriter(stage, spec, _data_record(record), _provenance(run_dir, record))
        writer.add("weights", "weights.safetensors", (run_dir / WEIGHTS_FILE).read_bytes())
        writer.add_array("golden_images", "golden/images.npy", images)
        writer.add_array("golden_logits", "golden/logits.npy", logits)
        no_graph = _add_graphs(writer, net, spec, images, logits)
        rows = [row for engine, named in _wanted(options.engine)
                for row in _add_engine(writer, engine, options, named=named, no_graph=no_graph)]  # fmt: skip
        rows += _keep_engines(writer, target)
        writer.write_manifest()
    return ExportResult(target, _parameters(model), _parameters(net), tuple(rows))


def golden_images(record: RunRecord, data_root: Path | None) -> UInt8Array:
    """Pictures of the validation split, spread over its classes: uint8 [n, H, W, 3].

    Never of the test split: what a bundle is judged on must not be what it was checked with while it was made.
    """
    root = data_root or Path(record.data_root)
    dataset = open_dataset(
        record.dataset, root, options=record.data_options, val_fraction=record.val_fraction, seed=record.split_seed
    )
    by_class = np.argsort(dataset.val.labels, kind="stable")
    picks = by_class[np.linspace(0, len(by_class) - 1, min(GOLDEN_IMAGES, len(by_class))).round().astype(int)]
    return np.stack([resize(dataset.val.load(int(index)), record.preprocessing) for index in picks])


def _add_graphs(
    writer: BundleWriter, net: FoldedResNet, spec: ModelSpec, images: UInt8Array, logits: Float32Array
) -> dict[str, ExportError]:
    """Write the graph of each precision; returns why one could not be had."""
    failed: dict[str, ExportError] = {}
    for precision in GRAPH_PRECISIONS:
        try:
            graph = serialize(graph_from_model(net, spec, precision))
            check_graph(graph, precision, net, spec, images, logits)
            writer.add("graph", f"model.{precision}.onnx", graph, precision=precision)
        except ExportError as error:
            if precision == "fp32":  # no engine can be right if this is wrong
                raise
            failed[precision] = error
    return failed


def _wanted(engine: str) -> Iterator[tuple[str, bool]]:
    """Engines to build, and whether the user named them."""
    if engine == "all":
        yield from (("onnxruntime", False), ("openvino", False), ("trt", False))
    else:
        yield engine, True


def _add_engine(
    writer: BundleWriter, engine: str, options: ExportOptions, *, named: bool, no_graph: dict[str, ExportError]
) -> Iterator[EngineRow]:
    precision = options.precision or _DEFAULT_PRECISION[engine]
    try:
        if precision in no_graph:
            raise no_graph[precision]
        if engine in ("trt", "trt-rtx"):
            yield _build_tensorrt(writer, engine, precision, options)
        else:
            yield _try_graph(writer, engine, precision)
    except (BackendUnavailable, ExportError, InputError) as error:
        if named or isinstance(error, InputError):
            raise
        yield EngineRow(engine, precision, "", 0, "failed", str(error))


def _try_graph(writer: BundleWriter, engine: str, precision: str) -> EngineRow:
    """ONNX Runtime and OpenVINO compile the graph when they open it: trying it is all there is to do."""
    bundle = writer.bundle()
    # OpenVINO computes bf16 from the FP32 graph.
    file = bundle.find("graph", precision="fp32" if precision == "bf16" else precision)
    if file is None:
        raise ExportError(f"no {precision} graph can be made by this version; expected one of fp32, fp16, bf16")
    state, note = _try(bundle, engine, precision)
    return EngineRow(engine, precision, file.path, file.bytes, state, note)


def _build_tensorrt(
    writer: BundleWriter, engine: str, precision: str, options: ExportOptions
) -> EngineRow:
    bundle = writer.bundle()
    graph = bundle.find("graph", precision=precision)
    if graph is None:
        raise ExportError(f"no {precision} graph can be made by this version; expected one of fp32, fp16")
    built = build_engine(
        bundle.read(graph),
        engine=cast(Engine, engine),
        precision=precision,
        batch=options.batch,
        target=options.target,
        optimization_level=options.optimization_level,
        workspace=options.workspace,
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
    return EngineRow(engine, precision, file.path, file.bytes, state, f"{built.note}; {note}" if built.note else note)


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
        return "built", f"built, not run here: {error}"
    except BundleError as error:
        raise ExportError(str(error)) from None


def _keep_engines(writer: BundleWriter, old: Path) -> Iterator[EngineRow]:
    """Carry over engines that an earlier export built from the very same graph."""
    if not (old / MANIFEST).exists():
        return
    try:
        before = open_bundle(old)
    except BundleError:
        return  # a damaged bundle is what a new export is there to replace
    here = writer.bundle()
    graphs = {file.sha256 for file in here.select("graph")}
    taken = {file.path for file in here.files}
    for file in before.select("engine"):
        built_for = dict(file.built_for or {})
        if built_for.get("graph") in graphs and file.path not in taken:
            try:
                content = before.read(file)
            except BundleError:
                continue
            writer.add(
                "engine", file.path, content, backend=file.backend, precision=file.precision, built_for=built_for
            )
            yield EngineRow(
                "trt", file.precision or "", file.path, file.bytes, "built", "kept from an earlier export of this graph"
            )


def _data_record(record: RunRecord) -> DataRecord:
    return DataRecord(
        name=record.dataset,
        options=record.data_options,
        val_fraction=record.val_fraction,
        split_seed=record.split_seed,
        counts=record.counts,
        fingerprints=record.fingerprints,
    )


def _provenance(run_dir: Path, record: RunRecord) -> dict[str, str]:
    trained = {f"trained_with_{key}": value for key, value in record.provenance.items()}
    return {
        "run": run_dir.resolve().name,
        "run_status": record.status,
        "samdeploy": samdeploy.__version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "checked_batch_sizes": ",".join(map(str, BATCH_SIZES)),
        **trained,
    }


def _parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
