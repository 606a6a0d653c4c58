"""INT8 with a contract: at most so many points of validation top-1 are lost, or there is no INT8 graph.

The ranges come first: of a few coverages of the training images' extremes, the one that moves the logits least.
Then everything is quantised.  Where that costs more than allowed, each layer's own cost is measured (the error of the
logits when it alone is quantised, on training images), and the layers that cost most go back to FP32 until the
promise holds on the validation split.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.errors import ExportError, InputError
from samdeploy.export.int8.qdq import Calibrated, Form, calibrate, quantize
from samdeploy.graphs.inference import open_inference, run_inference

# Percentage points of validation top-1 that INT8 may cost where the user says nothing.
MAX_DROP = 0.5
# Percent of the multiply-adds; a graph with less in int8 is slower than FP32 by its conversions alone.
MIN_INT8_SHARE = 50.0
# Training images that coverages and layers are tried on; their order settles with few.
COST_IMAGES = 32
# Percent of the training images whose values must fit.  All is best where no image stands out; a SAM-ResNet-50
# after four epochs had logits of 1e9 for one image in 128, and was at chance with all of them, right with 95 %.
COVERAGES = (100.0, 99.0, 98.0, 95.0, 90.0)

_BATCH = 16

# Called with (steps, what is being done) as the work goes on; `samdeploy.progress` yields one.
Advance = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class QuantizedGraph:
    """A graph that keeps the contract, and what it took.

    Attributes:
        graph: ONNX file with Q/DQ nodes; uint8 [N, H, W, 3] in, float32 [N, K] out.
        form: which runtimes it is for, see `samdeploy.export.int8.qdq`.
        val_top1_fp32, val_top1_int8: percent, on the same validation images.
        val_images: how many; one image is 100 / val_images points, the smallest drop that can be seen.
        kept: layers that stay in FP32, with the reason.
        calibration_images: training images that the ranges were measured on.
        coverage: percent of them whose values fit into the ranges; one of `COVERAGES`.
        int8_share_of_multiply_adds: percent.
    """

    graph: bytes
    form: Form
    val_top1_fp32: float
    val_top1_int8: float
    val_images: int
    kept: dict[str, str]
    calibration_images: int
    coverage: float
    int8_share_of_multiply_adds: float

    def to_json(self) -> dict[str, Any]:
        """As in quantization.json; see docs/files.md."""
        return {
            "form": self.form,
            "val_images": self.val_images,
            "val_top1_fp32": self.val_top1_fp32,
            "val_top1_int8": self.val_top1_int8,
            "fp32_layers": self.kept,
            "calibration_images": self.calibration_images,
            "coverage": self.coverage,
            "int8_share_of_multiply_adds": self.int8_share_of_multiply_adds,
        }


def quantize_graph(
    graph_fp32: bytes,
    calibration: UInt8Array,
    val_images: UInt8Array,
    val_labels: NDArray[np.int64],
    *,
    max_drop: float = MAX_DROP,
    form: Form = "cpu",
    progress: Advance | None = None,
) -> QuantizedGraph:
    """Quantise a graph so that it loses at most `max_drop` points of top-1 on the validation images.

    Args:
        graph_fp32: an FP32 ONNX file.
        calibration: uint8 [n, H, W, 3], RGB, training images.
        val_images: uint8 [m, H, W, 3], RGB, validation images.
        val_labels: int64 [m].
        max_drop: percentage points; a gain is no drop.  With few images this is coarse: of 144, one is 0.7
            points, so 0.5 allows not a single hit less.
        form: "cpu" for ONNX Runtime and OpenVINO, "tensorrt" for TensorRT.
        progress: called as the work goes on; the number of steps is not known before.

    Raises:
        InputError: no images to calibrate or to judge on, labels of another length, or a negative `max_drop`.
        ExportError: the drop is too large even with all layers in FP32 that `MIN_INT8_SHARE` allows.
    """
    if len(calibration) == 0:
        raise InputError("int8: no calibration images found, at least 1 training image expected")
    if len(val_images) == 0 or len(val_images) != len(val_labels):
        raise InputError(
            f"int8: {len(val_images)} validation images and {len(val_labels)} labels found, equal numbers above 0 "
            "expected; the drop is judged on them"
        )
    if not max_drop >= 0:
        raise InputError(f"int8: max drop {max_drop} found, 0 or more percentage points expected")
    search = _Search(graph_fp32, calibration, val_images, val_labels, max_drop, form, progress or _silent)
    return search.run()


class _Search:
    """The smallest number of layers in FP32 for which the drop is allowed."""

    def __init__(
        self,
        graph: bytes,
        calibration: UInt8Array,
        images: UInt8Array,
        labels: NDArray[np.int64],
        max_drop: float,
        form: Form,
        progress: Advance,
    ) -> None:
        self._progress = progress
        progress(0, "calibrating")
        self._calibrated: Calibrated = calibrate(graph, calibration)
        picks = np.linspace(0, len(calibration) - 1, min(COST_IMAGES, len(calibration))).round().astype(np.int64)
        self._tries, self._exact = calibration[picks], _logits(graph, calibration[picks])
        self._images, self._labels = images, labels
        self._max_drop, self._form = max_drop, form
        progress(1, "FP32 top-1")
        self._hits_fp32 = self._hits(graph)
        self._tried: dict[int, tuple[int, bytes]] = {}
        self._order: list[str] = []
        self._coverage, self._whole = self._best_coverage()

    def run(self) -> QuantizedGraph:
        costs: Mapping[str, float] = {}
        count = 0
        if not self._holds(0):
            costs = self._costs()
            self._order = sorted(costs, key=lambda unit: -costs[unit])
            count = self._smallest()
        hits, graph = self._tried[count]
        kept = self._order[:count]
        return QuantizedGraph(
            graph=graph,
            form=self._form,
            val_top1_fp32=100 * self._hits_fp32 / len(self._labels),
            val_top1_int8=100 * hits / len(self._labels),
            val_images=len(self._labels),
            kept={unit: f"in int8 alone, logits move by {100 * costs[unit]:.1f} % of their spread" for unit in kept},
            calibration_images=self._calibrated.smallest.shape[0],
            coverage=self._coverage,
            int8_share_of_multiply_adds=self._calibrated.share(kept),
        )

    def _smallest(self) -> int:
        """How many of the costliest layers must stay in FP32.

        Bisection, since more layers in FP32 lose less but for an image or two; what it finds is itself tested.
        """
        shares = [self._calibrated.share(self._order[:count]) for count in range(len(self._order) + 1)]
        most = sum(share >= MIN_INT8_SHARE for share in shares) - 1  # shares only fall
        count = bisect.bisect_left(range(most), True, key=self._holds)
        if most < 1 or not self._holds(count):
            tried = max(most, 0)
            hits = self._tried.get(tried, self._tried[0])[0]
            raise ExportError(
                f"int8 graph: {self._drop(hits):.2f} points of validation top-1 lost ({self._hits_fp32} of "
                f"{len(self._labels)} right in FP32, {hits} in int8) with the {tried} costliest layers in FP32, at "
                f"most {self._max_drop:g} allowed; more would leave less than {MIN_INT8_SHARE:.0f} % of the "
                "multiply-adds in int8; allow more with --max-drop, or export with --precision fp32"
            )
        return count

    def _holds(self, count: int) -> bool:
        if count not in self._tried:
            self._progress(1, f"int8 top-1, {count} layers FP32")
            kept = self._order[:count]
            graph = quantize(self._calibrated, self._form, kept, self._coverage) if kept else self._whole
            self._tried[count] = self._hits(graph), graph
        return self._drop(self._tried[count][0]) <= self._max_drop

    def _drop(self, hits: int) -> float:
        return 100 * (self._hits_fp32 - hits) / len(self._labels)

    def _hits(self, graph: bytes) -> int:
        return int((_logits(graph, self._images).argmax(axis=1) == self._labels).sum())

    def _best_coverage(self) -> tuple[float, bytes]:
        """The coverage that moves the logits least, the larger of two equal ones, and the graph with all in int8."""
        best, least = (COVERAGES[0], b""), math.nan
        for coverage in COVERAGES:
            self._progress(1, f"ranges of {coverage:g} % of the images")
            graph = quantize(self._calibrated, self._form, (), coverage)
            error = self._error(graph)
            if not best[1] or error < least:
                best, least = (coverage, graph), error
        return best

    def _costs(self) -> dict[str, float]:
        """Unit -> the error where it alone is quantised."""
        units = self._calibrated.units
        costs: dict[str, float] = {}
        for unit in units:
            self._progress(1, f"cost of {unit}")
            others = [other for other in units if other != unit]
            costs[unit] = self._error(quantize(self._calibrated, self._form, others, self._coverage))
        return costs

    def _error(self, graph: bytes) -> float:
        """How far the logits of training images move, as a share of their spread; the mean over the images.

        No image counts for more than 1, so that one with huge logits does not decide alone.
        """
        moved = np.linalg.norm(_logits(graph, self._tries) - self._exact, axis=1)
        spread = np.linalg.norm(self._exact - self._exact.mean(axis=1, keepdims=True), axis=1)
        return float(np.minimum(1, moved / np.maximum(spread, np.finfo(np.float32).tiny)).mean())


def _logits(graph: bytes, images: UInt8Array) -> Float32Array:
    """float32 [n, K], on the CPU."""
    session = open_inference(graph)
    name = session.get_inputs()[0].name
    batches = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
    return np.concatenate([np.asarray(run_inference(session, {name: batch})[0], np.float32) for batch in batches])


def _silent(steps: int, status: str) -> None:
    pass
