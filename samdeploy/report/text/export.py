"""What an export made, as tables of at most 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from samdeploy.export.calibrate import Probabilities
from samdeploy.export.export import ExportResult
from samdeploy.export.graphs import Headroom
from samdeploy.export.int8.search import QuantizedGraph
from samdeploy.terminal.tables import entries, paragraph, table
from samdeploy.terminal.wording import bits, floored, magnitude, megabytes, percent

# Rows of the head-room table: the tightest tensors decide.
TIGHTEST = 10
_WORSE = ": worse, though the likelihood, which it is fitted to, improves; give more validation images"


def headroom_table(headroom: Headroom) -> str:
    """The tensors nearest to the end of FP16, before and after rescaling, and the layers kept in FP32."""
    # The pixels are normalised in FP32 in every graph.
    rows = [row for row in headroom.rows if not row.name.startswith("pixels")]
    cells = []
    for row in sorted(rows, key=lambda row: row.bits)[:TIGHTEST]:
        k = headroom.exponents.get(row.name, 0)
        scaled = f"x 2^{-k}" if k else None
        cells.append(
            (row.name, magnitude(row.max_abs), bits(row.bits), scaled, bits(row.bits + k), percent(row.below_normal))
        )
    columns = ("<tensor", ">largest", ">bits", ">rescaled", ">bits", ">below\n2^-14, %")
    lines = [
        f"FP16 head-room on {headroom.images:,} images, the tightest {len(cells)} of {len(rows)} tensors",
        table(columns, cells),
        *_kept_in_fp32(headroom.fp32.items()),
        f"{floored(headroom.fp16_share)} % of the multiply-adds of the FP16 graph are in FP16",
    ]
    return "\n".join(lines)


def int8_lines(quantized: QuantizedGraph) -> str:
    """What INT8 cost on the validation images, and the layers that went back to FP32."""
    runtimes = "TensorRT" if quantized.form == "tensorrt" else "ONNX Runtime and OpenVINO"
    summary = (
        f"INT8 for {runtimes}: validation top-1 {percent(quantized.val_top1_fp32)} -> "
        f"{percent(quantized.val_top1_int8)} % ({quantized.val_images:,} images; one is "
        f"{percent(100 / quantized.val_images)} points), {floored(quantized.int8_share_of_multiply_adds)} % of the "
        "multiply-adds in int8; pixels and head always stay FP32"
    )
    lost = quantized.val_top1_fp32 - quantized.val_top1_int8
    lines = [paragraph(summary)]
    if lost > 0:
        cure = f"INT8 loses {percent(lost)} points here; to lose less: --max-drop below that, or --precision fp32"
        lines.append(paragraph(cure))
    return "\n".join([*lines, *_kept_in_fp32(quantized.kept.items())])


def export_table(result: ExportResult) -> str:
    """Parameters before and after the fold, a row per engine, and below the table what was found or is missing."""
    rows = [
        (f"{row.engine} {row.precision}", row.state, megabytes(row.bytes) if row.path else None, row.path)
        for row in result.rows
    ]
    lines = [
        _parameters(result),
        *map(paragraph, _probabilities(result.probabilities)),
        "",
        table(("<engine", "<state", ">MB", "<file"), rows),
        "",
        entries((f"{row.engine} {row.precision}", row.note) for row in result.rows if row.note),
    ]
    return "\n".join(lines)


def _parameters(result: ExportResult) -> str:
    if result.parameters == result.folded_parameters:
        return f"{result.parameters:,} parameters"
    return f"{result.parameters:,} parameters as trained, {result.folded_parameters:,} folded"


def _probabilities(found: Probabilities) -> Iterator[str]:
    """What was made of validation images, or of those set aside at an import."""
    if (fit := found.calibration) is not None:
        yield (
            f"probabilities: temperature {fit.temperature:.3f}, on {fit.images:,} validation images: calibration error "
            f"{percent(fit.ece_before)} -> {percent(fit.ece_after)} points"
            + (_WORSE if fit.ece_after > fit.ece_before else "")
        )
    else:
        yield f"probabilities: as the network gives them: {found.why_not}"
    if (chosen := found.rejection) is not None:
        yield (
            f"answers of a probability below {chosen.threshold:.6g} are rejected: of {chosen.images:,} other "
            f"validation images {percent(chosen.coverage)} % are accepted, and of accepted answers at most "
            f"{percent(chosen.bound)} % are wrong, with 95 % confidence (--reject-error {chosen.wanted_error:g})"
        )
    if found.trained_elsewhere and (found.calibration or chosen):
        yield "the network was trained elsewhere: if it was trained on these images, both are too good; eval tells"


def _kept_in_fp32(layers: Iterable[tuple[str, str]]) -> list[str]:
    rows = [(layer, f"stays FP32: {reason}") for layer, reason in layers]
    return [entries(rows)] if rows else []
