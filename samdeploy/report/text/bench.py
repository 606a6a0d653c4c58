"""What was measured, in at most 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from samdeploy.bench.alternatives.comparison import Comparison, notes
from samdeploy.bench.bench_json import BenchReport, EngineBench
from samdeploy.bench.figures import Figure

WIDTH = 80
_POINTS_PER_LINE = 8
_HEADER = (
    f"  {'ms, batch 1':<12} {'p50':>7} {'95 % CI of p50':>17} {'p90':>7} {'p95':>7} {'p99':>7} {'max':>7} {'n':>6}"
)
_AGAINST = f"{'engine':<30} {'p50 ms':>7} {'p10 - p90':>17} {'speed':>6} {'p10 - p90':>13}"


def table(report: BenchReport) -> str:
    """All engines, or all comparisons, with what spoils them."""
    lines: list[str] = []
    for engine in report.engines:
        lines += [*_engine(engine), ""]
    for comparison in report.against:
        lines += [*_comparison(comparison), ""]
    lines += _wrapped(f"pictures: {report.pictures}")
    lines += _wrapped(f"machine: {report.machine}")
    if report.busy:
        lines += _wrapped(
            f"load average {report.load_average:.1f} on {report.cores} cores before this began: other programs were "
            "running, and the figures are partly theirs"
        )
    return "\n".join(lines)


def _engine(engine: EngineBench) -> Iterator[str]:
    name = f"{engine.backend} {engine.precision}"
    if not engine.ran:
        yield f"{name}: not run here"
        yield from _wrapped(engine.reason, "  ")
        return
    yield f"{name} on {engine.device}"
    yield _HEADER
    for figure in engine.figures:
        yield from _figure(figure)
    if engine.batches:
        yield from _points("batch", "images/s", [(f"{p.batch}", p.images_per_s) for p in engine.batches])
    if engine.left_out:
        yield from _wrapped(f"batch {', '.join(map(str, engine.left_out))}: outside its profile, left out", "  ")
    if engine.threads:
        points = [(f"{p.threads} on {p.sessions}", p.images_per_s) for p in engine.threads]
        yield from _points("threads on sessions", "images/s", points)
    yield from _memory(engine)
    if engine.cuda_graphs:
        yield from _wrapped(f"CUDA graphs: {engine.cuda_graphs}", "  ")
    for state in engine.gpu:
        throttled = f"; held down by: {', '.join(state.throttled)}" if state.throttled else ""
        yield from _wrapped(
            f"{state.name}: {_known(state.sm_clock_mhz)} of {_known(state.sm_clock_max_mhz)} MHz, "
            f"memory {_known(state.memory_clock_mhz)} MHz, {_known(state.temperature_c)} °C, "
            f"{_known(state.power_w)} of {_known(state.power_limit_w)} W{throttled}",
            "  ",
        )
    if engine.gpu_note:
        yield from _wrapped(engine.gpu_note, "  ")
    if engine.reason:
        yield from _wrapped(f"FAILED at {engine.reason}", "  ")


def _figure(figure: Figure) -> Iterator[str]:
    found = figure.latency
    if found is None:
        yield from _wrapped(f"{figure.stage:<12} {figure.note}", "  ")
        return
    interval = f"{_ms(found.p50_low_ms)} - {_ms(found.p50_high_ms)}"
    slow = " ".join(f"{_ms(value):>7}" for value in (found.p90_ms, found.p95_ms, found.p99_ms, found.max_ms))
    yield f"  {figure.stage:<12} {_ms(found.p50_ms):>7} {interval:>17} {slow} {found.runs:>6}"
    if found.noise:
        yield from _wrapped(found.noise, "    ")
    if not found.warm_up_settled:
        yield f"    warm-up: not settled after {found.warm_up_runs} runs in {found.warm_up_s:.1f} s"


def _points(first: str, second: str, points: Sequence[tuple[str, float]]) -> Iterator[str]:
    for start in range(0, len(points), _POINTS_PER_LINE):
        part = points[start : start + _POINTS_PER_LINE]
        width = max(len(first), len(second))
        columns = (WIDTH - 2 - width) // max(len(part), 5)
        columns = min(columns, 9)
        yield f"  {first:<{width}}" + "".join(f"{name:>{columns}}" for name, _ in part)
        yield f"  {second:<{width}}" + "".join(f"{_rate(rate):>{columns}}" for _, rate in part)


def _memory(engine: EngineBench) -> Iterator[str]:
    found = engine.cold_start
    if found is None:
        return
    text = (
        f"cold start: {found.open_to_answer_ms:,.0f} ms from opening to the first answer, "
        f"{found.start_to_answer_ms:,.0f} ms from the start of the process (median of {found.processes}); "
        f"peak memory {found.host_peak_mib:,.0f} MiB"
    )
    if found.device_mib is not None:
        text += f", {found.device_mib:,.0f} MiB of the GPU"
    elif found.device_note:
        text += f"; of the GPU: {found.device_note}"
    yield from _wrapped(text, "  ")


def _comparison(comparison: Comparison) -> Iterator[str]:
    yield f"batch {comparison.batch}, host memory to host memory, {comparison.rounds} rounds in turns"
    yield _AGAINST
    yield "-" * len(_AGAINST)
    for row in comparison.rows:
        if row.p50_ms is None or not row.ran:
            yield f"{row.name:<30} {'died' if row.p50_ms is not None else 'not run here'}"
            continue
        spread = f"{_ms(row.p10_ms)} - {_ms(row.p90_ms)}" if row.p10_ms is not None and row.p90_ms is not None else "-"
        relative = row.times_base
        speed = f"{relative.median:.2f}x" if relative else "-"
        around = f"{relative.p10:.2f} - {relative.p90:.2f}" if relative and row.p10_ms is not None else "-"
        yield f"{row.name:<30} {_ms(row.p50_ms):>7} {spread:>17} {speed:>6} {around:>13}"
    if comparison.base:
        yield from _wrapped(f"speed: 1.00x is {comparison.base}, within the same round; more is faster")
    for name, text in notes(comparison):
        yield from _wrapped(f"{name}: {text}", "  ")


def _wrapped(text: str, indent: str = "") -> Iterable[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")


def _known(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f}"


def _ms(value: float) -> str:
    """As many digits as fit into seven characters."""
    return f"{value:.3f}" if value < 99.9995 else f"{value:.2f}" if value < 9999.995 else f"{value:.0f}"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
