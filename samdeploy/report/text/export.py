"""What an export made, as a table of at most 80 columns."""

from __future__ import annotations

import math
import textwrap

from samdeploy.export.export import ExportResult
from samdeploy.export.graphs import Headroom
from samdeploy.export.int8.search import QuantizedGraph

# Rows of the head-room table: the tightest tensors decide.
TIGHTEST = 10


def headroom_table(headroom: Headroom) -> str:
    """The tensors nearest to the end of FP16, before and after rescaling, and the layers kept in FP32."""
    # The pixels are normalised in FP32 in every graph.
    rows = [row for row in headroom.rows if not row.name.startswith("pixels")]
    lines = [
        f"FP16 head-room on {headroom.images:,} training images, tightest {TIGHTEST} of {len(rows)} tensors",
        f"{'tensor':<28} {'largest':>10} {'bits':>6} {'rescaled':>9} {'bits':>6} {'below 2^-14':>12}",
    ]
    for row in sorted(rows, key=lambda row: row.bits)[:TIGHTEST]:
        k = headroom.exponents.get(row.name, 0)
        scaled = f"x 2^{-k}" if k else "-"
        lines.append(
            f"{row.name:<28} {row.max_abs:10.4g} {row.bits:6.1f} {scaled:>9} {row.bits + k:6.1f} "
            f"{row.below_normal:10.2f} %"
        )
    lines += [line for layer, reason in headroom.fp32.items() for line in _indented(f"{layer} stays FP32: {reason}")]
    lines.append(f"{_floored(headroom.fp16_share)} % of the multiply-adds of the FP16 graph are in FP16")
    return "\n".join(lines)


def int8_lines(quantized: QuantizedGraph) -> str:
    """What INT8 cost on the validation pictures, and the layers that went back to FP32."""
    lines = [
        f"INT8 for {'TensorRT' if quantized.form == 'tensorrt' else 'ONNX Runtime and OpenVINO'}: validation top-1 "
        f"{quantized.val_top1_fp32:.2f} -> {quantized.val_top1_int8:.2f} %",
        f"  ({quantized.val_images:,} images; one is {100 / quantized.val_images:.2f} points), "
        f"{_floored(quantized.int8_share_of_multiply_adds)} % of the multiply-adds in int8;",
        "  pixels and head stay FP32 always",
    ]
    lines += [line for layer, reason in quantized.kept.items() for line in _indented(f"{layer} stays FP32: {reason}")]
    return "\n".join(lines)


def _floored(percent: float) -> str:
    """One decimal, never rounded up: 99.98 % are not all."""
    return f"{math.floor(10 * percent) / 10:.1f}"


def export_table(result: ExportResult) -> str:
    """Parameters before and after the fold, and a row per engine with the reason below it."""
    lines = [f"{result.parameters:,} parameters as trained, {result.folded_parameters:,} folded"]
    lines.append(f"{'engine':<12} {'prec':<4} {'MB':>6}  {'state':<9} file")
    for row in result.rows:
        size = f"{row.bytes / 1e6:6.1f}" if row.path else f"{'-':>6}"
        lines.append(f"{row.engine:<12} {row.precision:<4} {size}  {row.state:<9} {row.path}")
        lines += _indented(row.note)
    return "\n".join(lines)


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, 78, initial_indent="  ", subsequent_indent="  ")
