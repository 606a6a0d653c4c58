"""The graphs of a bundle: FP32 as simplified, FP16 rescaled where that is needed, each checked before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from samdeploy.arrays import Float32Array, Int64Array, UInt8Array
from samdeploy.backends.golden import GOLDEN_TOLERANCE, golden_error
from samdeploy.backends.onnxruntime.session import emulate
from samdeploy.errors import BackendUnavailable, ExportError
from samdeploy.export.check import check_graph
from samdeploy.export.departure import why_different
from samdeploy.export.fp16.convert import fp16_graph
from samdeploy.export.fp16.headroom import TensorRange, measure_ranges
from samdeploy.export.fp16.plan import Fp16Plan, plan_fp16
from samdeploy.export.int8.search import QuantizedGraph, quantize_graph
from samdeploy.export.network import Network
from samdeploy.export.pack import BundleWriter
from samdeploy.export.run_images import ExportImages
from samdeploy.files import json_bytes
from samdeploy.graphs.cost import layer_multiply_adds
from samdeploy.graphs.edit import serialize
from samdeploy.progress import progress_bar

HEADROOM_FILE = "headroom.json"
NO_IMAGES = (
    "the network was imported without images, on which FP16 and INT8 are measured; import it again with --data FOLDER, "
    "or export with --precision fp32"
)
SMALL = "--small leaves the FP16 graph out; name the engine to have it: --engine trt, or --precision fp16"
# Of the multiply-adds; an FP16 engine with less is FP32 in all but name.
MIN_FP16_SHARE = 95.0


@dataclass(frozen=True, slots=True)
class Headroom:
    """The head-room map, and what was done about it.

    Attributes:
        images: training images it was measured on.
        rows: every tensor of the FP32 graph, in its order.
        exponents: tensor -> k, where the FP16 graph stores it as its value times 2**-k; only those that are not 0.
        fp32: layers that stay in FP32 in the FP16 graph, with the reason.
        fp16_share: percent of the multiply-adds that the FP16 graph computes in FP16.
    """

    images: int
    rows: tuple[TensorRange, ...]
    exponents: Mapping[str, int]
    fp32: dict[str, str]
    fp16_share: float

    def to_json(self) -> dict[str, Any]:
        """As in headroom.json; see docs/files.md."""
        return {
            "images": self.images,
            "fp16_share_of_multiply_adds": self.fp16_share,
            "fp32_layers": self.fp32,
            "tensors": [
                {
                    "name": row.name,
                    "max_abs": row.max_abs,
                    "bits": row.bits if row.max_abs > 0 else None,
                    "below_smallest_normal_percent": row.below_normal,
                    "stored_as_times_two_to_minus": self.exponents.get(row.name, 0),
                }
                for row in self.rows
            ],
        }


def add_graphs(
    writer: BundleWriter, network: Network, images: ExportImages, logits: Float32Array, *, fp16: bool = True
) -> tuple[Headroom | None, dict[tuple[str, str | None], ExportError]]:
    """Write the graph of each precision and the head-room map.

    Args:
        writer: gets the files.
        network: of the run.
        images: golden ones to check on, the others to measure on.
        logits: float32 [n, K], of the network as trained on the golden images.
        fp16: whether that graph and the map are wanted.

    Returns:
        The map, None without it or without images to measure it on; and for each precision that cannot be had, and the
        backend it was for, the reason.

    Raises:
        ExportError: the FP32 graph is not the network; no engine could be right.
    """
    golden = images.golden
    graph = serialize(network.graph)
    try:
        check_graph(graph, "fp32", golden, logits)
    except ExportError as error:
        raise ExportError(f"{error}: {why_different(network, golden)}") from None
    writer.add("graph", "model.fp32.onnx", graph, precision="fp32")

    if not fp16:
        return None, {("fp16", None): ExportError(SMALL)}
    if not len(images.headroom):
        return None, {("fp16", None): ExportError(NO_IMAGES)}
    ranges = measure_ranges(network.graph, images.headroom)
    plan = plan_fp16(network, ranges, images.calibration)
    headroom = _headroom(plan, ranges, len(images.headroom))
    writer.add("headroom", HEADROOM_FILE, json_bytes(headroom.to_json()))

    failed: dict[tuple[str, str | None], ExportError] = {}
    try:
        if headroom.fp16_share < MIN_FP16_SHARE:
            reasons = "; ".join(f"{layer} {reason}" for layer, reason in plan.fp32.items())
            raise ExportError(
                f"fp16 graph: only {headroom.fp16_share:.1f} % of the multiply-adds can be computed in FP16, at least "
                f"{MIN_FP16_SHARE:.0f} % expected ({reasons}); export with --precision fp32"
            )
        graph = serialize(fp16_graph(plan.graph, plan.fp32))
        check_graph(graph, "fp16", golden, logits)
        writer.add("graph", "model.fp16.onnx", graph, precision="fp16")
    except ExportError as error:
        failed["fp16", None] = error
    return headroom, failed


def add_int8_graph(
    writer: BundleWriter,
    backend: str | None,
    calibration: UInt8Array,
    validation: tuple[UInt8Array, Int64Array],
    max_drop: float,
) -> QuantizedGraph:
    """Quantise the FP32 graph and write the result, with what it cost beside it.

    Args:
        writer: holds the FP32 graph.
        backend: "tensorrt" for the form that TensorRT reads, None for the one of the CPU runtimes.
        calibration: uint8 [n, H, W, 3], training images.
        validation: images uint8 [m, H, W, 3] and labels int64 [m] that the drop is judged on.
        max_drop: points of top-1.

    Raises:
        ExportError: the drop cannot be held, or the golden answers move too far.
    """
    bundle = writer.bundle()
    fp32 = bundle.find("graph", precision="fp32")
    assert fp32 is not None  # add_graphs wrote it, or raised
    with progress_bar("quantizing", None) as advance:
        try:
            quantized = quantize_graph(
                bundle.read(fp32),
                calibration,
                *validation,
                max_drop=max_drop,
                form="tensorrt" if backend == "tensorrt" else "cpu",
                progress=advance,
            )
        except BackendUnavailable as error:  # of ONNX Runtime, which measures what INT8 costs
            raise ExportError(f"int8 graph: {error}") from None
    images, logits = bundle.golden()
    moved, allowed = golden_error(emulate(quantized.graph, images), logits, "int8"), GOLDEN_TOLERANCE["int8"]
    if not moved <= allowed:
        raise ExportError(
            f"int8 graph: the golden images' logits move by {100 * moved:.0f} % of their range, at most "
            f"{100 * allowed:.0f} % is allowed: int8 is too coarse for this network; export with --precision fp16 or "
            "fp32"
        )
    name = "int8.tensorrt" if backend == "tensorrt" else "int8"
    writer.add("graph", f"model.{name}.onnx", quantized.graph, backend=backend, precision="int8")
    writer.add("quantization", f"quantization.{name}.json", json_bytes(quantized.to_json()), backend=backend)
    return quantized


def _headroom(plan: Fp16Plan, ranges: tuple[TensorRange, ...], images: int) -> Headroom:
    cost = layer_multiply_adds(plan.graph)
    in_fp16 = sum(count for layer, count in cost.items() if layer not in plan.fp32)
    return Headroom(
        images=images,
        rows=ranges,
        exponents=plan.exponents,
        fp32=plan.fp32,
        fp16_share=100 * in_fp16 / sum(cost.values()),
    )
