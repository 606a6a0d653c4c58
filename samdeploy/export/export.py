"""`samdeploy export`: from a run directory to a bundle whose engines were tried where they can run."""

from __future__ import annotations

import hashlib
import math
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch

import samdeploy
from samdeploy.arrays import Int64Array, UInt8Array, UInt64Array
from samdeploy.backends.names import BACKENDS, check_supported
from samdeploy.bundle.golden import proves_nothing
from samdeploy.bundle.manifest import DataRecord
from samdeploy.bundle.measured import Measured, MeasuredSplit, model_sha256
from samdeploy.bundle.names import BUNDLE_FOLDER, HASHES_FILE, RUN_FILE, WEIGHTS_FILE
from samdeploy.bundle.spec import ModelSpec
from samdeploy.data.duplicates.bundle_hashes import ROLES, bundle_hashes
from samdeploy.data.duplicates.image_hashes import ImageHashes, read_hashes
from samdeploy.errors import OTHER_WEIGHTS, ExportError, InputError
from samdeploy.export.calibrate import Probabilities, check_rejection, probabilities
from samdeploy.export.cam_graph import add_cam_graph
from samdeploy.export.check import BATCH_SIZES
from samdeploy.export.engines import (
    DEFAULT_PRECISION,
    EngineRow,
    ExportOptions,
    add_engine,
    graph_backend,
    keep_engines,
    wanted_engines,
    wants_fp16,
)
from samdeploy.export.golden_colour import with_colour
from samdeploy.export.graphs import NO_IMAGES, Headroom, add_graphs, add_int8_graph
from samdeploy.export.int8.search import QuantizedGraph
from samdeploy.export.looked_at import NO_IMAGES as NO_TRAINING_IMAGES
from samdeploy.export.looked_at import looked_at
from samdeploy.export.network import network_of_run
from samdeploy.export.pack import BundleWriter
from samdeploy.export.run_images import (
    ExportImages,
    export_images,
    has_images,
    headroom_images,
    validation_images,
)
from samdeploy.export.stage import staged
from samdeploy.graphs.cost import multiply_adds
from samdeploy.runs.as_bundle import data_record
from samdeploy.runs.record import RunRecord, legs_in_words, open_run


@dataclass(frozen=True, slots=True)
class ExportResult:
    """Where the bundle lies and what stands in it."""

    bundle: Path
    parameters: int
    folded_parameters: int
    headroom: Headroom | None
    int8: tuple[QuantizedGraph, ...]
    probabilities: Probabilities
    rows: tuple[EngineRow, ...]


def export_run(run_dir: Path, options: ExportOptions) -> ExportResult:
    """Simplify, write graphs, build engines, try them, and put the bundle at `run_dir/bundle`.

    Engines of an earlier export of the same weights stay, unless they are built anew.  If anything that was asked
    for by name fails, the bundle that was there stays untouched.

    Raises:
        InputError: the engine that was named never has this precision, or it needs images and the run has none, or too
            few validation images for `reject_error`.
        BundleError: the run is damaged or of a newer version.
        WeightsError, DatasetError: weights or images cannot be read.
        ExportError: a graph or engine is not the trained network, or no threshold keeps `reject_error`.
        BackendUnavailable: an engine that was asked for by name cannot be built here.
    """
    if options.engine in BACKENDS and options.precision is not None:  # known now, not after the calibration
        check_supported(options.engine, "auto", options.precision)
    record = open_run(run_dir)
    named = options.precision or DEFAULT_PRECISION.get(options.engine)
    if named in ("fp16", "int8") and not has_images(record, options.data_root):
        raise InputError(f"{run_dir}: {NO_IMAGES}")
    if options.reject_error is not None:
        check_rejection(record, options.data_root, options.reject_error)
    if record.status not in ("complete", "imported"):
        print(
            f"run {run_dir}: its training is not complete ({record.status}); exporting the weights of epoch "
            f"{record.best_epoch}",
            file=sys.stderr,
        )
    weights = _weights(run_dir, record)
    network = network_of_run(run_dir, record)
    n_headroom = headroom_images(sum(multiply_adds(network.graph).values()))
    chosen = export_images(run_dir, record, options.data_root, n_headroom)
    validation = None
    if options.precision == "int8":
        validation = validation_images(run_dir, record, options.data_root)
    found = probabilities(run_dir, record, network, options.data_root, options.reject_error)
    target, hashes_file = run_dir / BUNDLE_FOLDER, run_dir / HASHES_FILE
    hashes = read_hashes(hashes_file) if hashes_file.is_file() else {}
    used = NO_TRAINING_IMAGES
    if record.status == "imported" and has_images(record, options.data_root):
        images = [chosen.golden, chosen.calibration, chosen.headroom, found.images, *(validation or ())[:1]]
        used = looked_at(images, hashes, target)
    chosen = replace(chosen, golden=with_colour(chosen.golden, network.answer))
    logits = network.answer(chosen.golden)
    if not np.isfinite(logits).all():
        raise ExportError(f"{run_dir}: the trained network's own logits are not finite; {OTHER_WEIGHTS}")

    if nothing := proves_nothing(chosen.golden, logits):
        raise ExportError(f"{run_dir}: {nothing}, so the bundle could not test its engines; {OTHER_WEIGHTS}")

    with staged(target) as stage:
        spec = network.spec
        data = _data_record(record, used)
        provenance, measured = _provenance(run_dir, record), _measured(record, spec, hashes)
        answers = found.calibration, found.rejection, found.answered
        writer = BundleWriter(stage, spec, data, provenance, measured, *answers)
        writer.add("weights", "weights.safetensors", weights)
        writer.add_array("golden_images", "golden/images.npy", chosen.golden)
        writer.add_array("golden_logits", "golden/logits.npy", logits)
        _add_hashes(writer, hashes)
        if len(used):
            writer.add_array(ROLES["train"], "hashes/train.npy", used)
        headroom, no_graph = add_graphs(writer, network, chosen, logits, fp16=wants_fp16(options))
        if options.cam:
            add_cam_graph(writer, network, chosen.golden)
        int8 = [] if validation is None else _add_int8(writer, options, chosen, validation, no_graph)
        rows = [row for engine, named in wanted_engines(options.engine)
                for row in add_engine(writer, engine, options, named=named, no_graph=no_graph)]  # fmt: skip
        rows += keep_engines(writer, target)
        writer.write_manifest()
    parameters, simple = (_parameters(model, network.graph) for model in (network.trained, network.simple))
    return ExportResult(target, parameters, simple, headroom, tuple(int8), found, tuple(rows))


def _add_hashes(writer: BundleWriter, hashes: Mapping[str, ImageHashes]) -> None:
    """What `eval` needs to know training images again, also away from the run."""
    for split, role in ROLES.items():
        if split in hashes:
            writer.add_array(role, f"hashes/{split}.npy", bundle_hashes(hashes[split]))


def _add_int8(
    writer: BundleWriter,
    options: ExportOptions,
    chosen: ExportImages,
    validation: tuple[UInt8Array, Int64Array],
    no_graph: dict[tuple[str, str | None], ExportError],
) -> list[QuantizedGraph]:
    """The INT8 graphs that the wanted engines are made from; what cannot be had goes into `no_graph`.

    Raises:
        ExportError: none can be had.
    """
    found: list[QuantizedGraph] = []
    refused: list[ExportError] = []
    for backend in sorted({graph_backend(engine, "int8") for engine, _ in wanted_engines(options.engine)}, key=str):
        try:
            found.append(add_int8_graph(writer, backend, chosen.calibration, validation, options.max_drop))
        except ExportError as error:
            no_graph["int8", backend] = error
            refused.append(error)
    if not found:
        raise refused[0]
    return found


def _weights(run_dir: Path, record: RunRecord) -> bytes:
    """weights.safetensors, which must be the file that training measured."""
    path = run_dir / WEIGHTS_FILE
    content = path.read_bytes() if path.is_file() else b""  # load_weights names a missing file
    if content and record.weights_sha256 not in ("", hashlib.sha256(content).hexdigest()):
        raise ExportError(
            f"{path}: is not the file of epoch {record.best_epoch} that {RUN_FILE} names; put it back, or go on with: "
            f"samdeploy train --resume {run_dir}"
        )
    return content


def _data_record(record: RunRecord, used: UInt64Array) -> DataRecord:
    found = data_record(record)
    return replace(found, counts={**record.counts, "train": len(used)}) if len(used) else found


def _measured(record: RunRecord, spec: ModelSpec, hashes: Mapping[str, ImageHashes]) -> Measured | None:
    """What training measured; None where the run did not record it.

    Args:
        hashes: of an imported run, whose network was measured on these images of val alone.
    """
    if not record.weights_sha256 or not (record.images_sha256 or record.status == "imported"):
        return None

    def split(name: str, top1: float) -> MeasuredSplit:
        count = len(hashes[name]) if record.status == "imported" and name in hashes else record.counts[name]
        return MeasuredSplit(top1, count, record.images_sha256[name], record.labelled_sha256[name])

    return Measured(
        model_sha256=model_sha256(spec),
        weights_sha256=record.weights_sha256,
        epoch=record.best_epoch,
        val=split("val", record.best_val_top1) if record.images_sha256 else None,
        test=split("test", record.test_top1) if record.test_top1 is not None else None,
    )


def _provenance(run_dir: Path, record: RunRecord) -> dict[str, str]:
    known = {**record.provenance, **legs_in_words(record.legs)}
    trained = {f"trained_with_{key}": value for key, value in known.items()}
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


def _parameters(module: torch.nn.Module, graph: onnx.ModelProto) -> int:
    """Of a network that has no tensors of its own, such as an ONNX file, those of its graph."""
    own = sum(parameter.numel() for parameter in module.parameters())
    weights = (tensor for tensor in graph.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT)
    return own or sum(math.prod(tensor.dims) for tensor in weights)
