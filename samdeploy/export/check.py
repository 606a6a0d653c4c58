"""Every exported graph is compared with the trained network before anything is written."""

from __future__ import annotations

import numpy as np
import onnx

from samdeploy.arrays import Float32Array, Float64Array, UInt8Array
from samdeploy.backends.difference import difference_shares, image_ranges
from samdeploy.backends.golden import GOLDEN_TOLERANCE
from samdeploy.backends.onnxruntime.session import emulate
from samdeploy.errors import ExportError
from samdeploy.export.fp16.emulate import emulate_fp16

# One, two, and a number that is no multiple of any vector width: exporters are known to get some of them wrong.
BATCH_SIZES = (1, 2, 7)


def check_graph(graph: bytes, precision: str, images: UInt8Array, logits: Float32Array) -> float:
    """Run `graph` in batches of `BATCH_SIZES` and compare with the trained network's answers.

    For FP16 a second run checks what ONNX Runtime's CPU kernels cannot show, since they compute FP16 graphs in
    float32: every FP16 tensor is rounded, as a GPU stores it.

    Args:
        graph: an ONNX file.
        precision: of its arithmetic, "fp32" or "fp16".
        images: uint8 [n, H, W, 3], real images.
        logits: float32 [n, K], of the network as trained.

    Returns:
        The largest difference, as a share of its image's `image_ranges`.

    Raises:
        ExportError: not finite, or further off than `GOLDEN_TOLERANCE`.
    """
    worst, ranges = 0.0, image_ranges(logits)
    for batch in BATCH_SIZES:
        # Too few images are repeated: at batch 7 each row must still be its own image's answer.
        rows = np.arange(batch) % len(images)
        found = emulate(graph, images[rows])
        worst = max(worst, _difference(found, logits[rows], ranges[rows], precision, f"batch {batch}"))
    if precision == "fp16":
        rounded = emulate_fp16(onnx.load_from_string(graph), images)
        worst = max(worst, _difference(rounded, logits, ranges, precision, "activations rounded to FP16"))
    return worst


def _difference(found: Float32Array, expected: Float32Array, ranges: Float64Array, precision: str, how: str) -> float:
    if found.shape != expected.shape:
        raise ExportError(f"{precision} graph, {how}: logits {list(found.shape)}, expected {list(expected.shape)}")
    if not np.isfinite(found).all():
        raise ExportError(
            f"{precision} graph, {how}: {int((~np.isfinite(found)).sum())} of {found.size} logits are not finite; "
            "activations leave the range of FP16 (65,504), export with --precision fp32"
        )
    error = float(difference_shares(found, expected, ranges).max())
    allowed = GOLDEN_TOLERANCE[precision]
    if error > allowed:
        raise ExportError(
            f"{precision} graph, {how}: logits differ from PyTorch's by {error:.2e} of their range, at most "
            f"{allowed:.0e} is allowed"
        )
    return error
