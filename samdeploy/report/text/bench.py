"""What was measured, in at most 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from samdeploy.bench.alternatives.comparison import Comparison, Row, notes
from samdeploy.bench.bench_json import BenchReport, EngineBench
from samdeploy.bench.cold_start import ColdStart
from samdeploy.bench.figures import Figure
from samdeploy.bench.nvml import GpuState
from samdeploy.terminal.tables import Cell, entries, paragraph, table
from samdeploy.terminal.wording import NOT_RUN, STOPPED, VERDICTS, engine_name, milliseconds, rate, ratio, span

_POINTS_PER_TABLE = 8
_FIGURES = ("<ms, batch 1", ">p50", ">95 % interval", ">p90", ">p95", ">p99", ">max", ">runs")
_AGAINST = ("<engine", ">p50\nms", ">p10 to p90\nms", ">speed", ">p10 to p90")


def bench_tables(report: BenchReport) -> str:
    """All engines, or all comparisons, with what spoils them."""
    blocks = [*map(_engine, report.engines), *map(_comparison, report.against)]
    surroundings = [("images", report.images), ("machine", report.machine)]
    if report.busy:
        busy = (
            f"average {report.load_average:.1f} on {report.cores} core{'s' * (report.cores != 1)} before this began: "
            "other programs were running, so do not rely on the figures"
        )
        surroundings.append(("load", busy))
    return "\n\n".join([*blocks, entries(surroundings)])


def _engine(engine: EngineBench) -> str:
    name = engine_name(engine.backend, engine.precision, engine.device)
    if not engine.ran:
        return f"{name}\n{entries([(NOT_RUN.word, engine.reason)])}"
    rates = [(str(point.batch), point.images_per_s) for point in engine.batches]
    threads = [(f"{point.threads} on {point.sessions}", point.images_per_s) for point in engine.threads]
    blocks = [
        f"{name}\n{table(_FIGURES, map(_figure, engine.figures))}",
        *_points("batch", rates),
        *_points("threads on sessions", threads),
    ]
    remarks = [*_remarks(engine)]
    return "\n\n".join([*blocks, *([entries(remarks)] if remarks else [])])


def _figure(figure: Figure) -> tuple[Cell, ...]:
    found = figure.latency
    if found is None:
        return (figure.stage, *[None] * 7)
    interval = span(found.p50_low_ms, found.p50_high_ms, milliseconds)
    slow = map(milliseconds, (found.p90_ms, found.p95_ms, found.p99_ms, found.max_ms))
    return (figure.stage, milliseconds(found.p50_ms), interval, *slow, found.runs)


def _points(what: str, points: Sequence[tuple[str, float]]) -> Iterator[str]:
    for start in range(0, len(points), _POINTS_PER_TABLE):
        part = points[start : start + _POINTS_PER_TABLE]
        columns = [f"<{what}", *(f">{name}" for name, _ in part)]
        yield table(columns, [["images/s", *(rate(found) for _, found in part)]])


def _remarks(engine: EngineBench) -> Iterator[tuple[str, str]]:
    """(what it is about, what the reader should know)."""
    for figure in engine.figures:
        found = figure.latency
        if found is None:
            yield figure.stage, figure.note
        elif found.noise:
            yield figure.stage, found.noise
        if found is not None and not found.warm_up_settled:
            yield figure.stage, f"warm-up: not settled after {found.warm_up_runs:,} runs in {found.warm_up_s:.1f} s"
    if engine.left_out:
        yield "batch", f"{', '.join(map(str, engine.left_out))}: outside its profile, left out"
    if engine.cold_start is not None:
        yield from _cold_start(engine.cold_start)
    if engine.cuda_graphs:
        yield "CUDA graphs", engine.cuda_graphs
    yield from (("GPU", _gpu(state)) for state in engine.gpu)
    if engine.gpu_note:
        yield "GPU", engine.gpu_note
    if engine.reason:
        yield VERDICTS["fails"].word, engine.reason


def _cold_start(found: ColdStart) -> Iterator[tuple[str, str]]:
    yield (
        "cold start",
        f"{found.open_to_answer_ms:,.0f} ms from opening to the first answer, {found.start_to_answer_ms:,.0f} ms from "
        f"the start of the process (median of {found.processes})",
    )
    device = f"; of the GPU: {found.device_note}" if found.device_note else ""
    if found.device_mib is not None:
        device = f", {found.device_mib:,.0f} MiB of the GPU"
    yield "peak memory", f"{found.host_peak_mib:,.0f} MiB{device}"


def _gpu(state: GpuState) -> str:
    throttled = f"; held down by: {', '.join(state.throttled)}" if state.throttled else ""
    return (
        f"{state.name}: {_known(state.sm_clock_mhz)} of {_known(state.sm_clock_max_mhz)} MHz, "
        f"memory {_known(state.memory_clock_mhz)} MHz, {_known(state.temperature_c)} C, "
        f"{_known(state.power_w)} of {_known(state.power_limit_w)} W{throttled}"
    )


def _known(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f}"


def _comparison(comparison: Comparison) -> str:
    lines = [
        f"batch {comparison.batch}, host memory to host memory, {comparison.rounds} rounds in turns",
        table(_AGAINST, map(_against, comparison.rows)),
    ]
    if comparison.base:
        lines.append(paragraph(f"speed: 1.00x is {comparison.base}, within the same round; more is faster"))
    remarks = [*notes(comparison)]
    return "\n".join([*lines, *(["", entries(remarks)] if remarks else [])])


def _against(row: Row) -> tuple[Cell, ...]:
    if row.p50_ms is None or not row.ran:
        return (row.name, NOT_RUN.word if row.p50_ms is None else STOPPED.word, None, None, None)
    spread = span(row.p10_ms, row.p90_ms, milliseconds)
    if row.times_base is None:
        return (row.name, milliseconds(row.p50_ms), spread, None, None)
    around = None if row.p10_ms is None else span(row.times_base.p10, row.times_base.p90, ratio)  # one figure alone
    return (row.name, milliseconds(row.p50_ms), spread, f"{ratio(row.times_base.median)}x", around)
