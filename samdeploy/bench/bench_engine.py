"""All that is measured of one engine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from samdeploy.backends import open_session
from samdeploy.backends.session import CheckedSession
from samdeploy.bench import nvml
from samdeploy.bench.bench_json import EngineBench
from samdeploy.bench.cold_start import ColdStart, measure_cold_start
from samdeploy.bench.engines import ALL, Engine, sweep_sizes
from samdeploy.bench.figures import STAGES, Figure, measure_figure
from samdeploy.bench.options import BenchOptions
from samdeploy.bench.throughput import BatchPoint, ThreadPoint, measure_batch, measure_threads
from samdeploy.bench.timed_images import TimedImages
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable, InputError, first_line
from samdeploy.progress import progress_bar

# (threads, sessions)
CONCURRENCY = ((1, 1), (2, 1), (4, 1), (2, 2), (4, 4))

Step = tuple[str, Callable[[], None]]


def bench_engine(bundle: Bundle, engine: Engine, options: BenchOptions, source: TimedImages) -> EngineBench:
    """The three figures, the sweep over batch sizes, threads and sessions, and fresh processes.

    Raises:
        InputError: a device or precision that the backend never has, where it was asked for by name.
        BundleError: a file was changed, or the engine's answers are not the model's.
    """
    try:
        session = open_session(bundle, engine.backend, device=options.device, precision=engine.precision)
    except (BackendUnavailable, InputError) as error:
        # A device or precision that this runtime never has: the user's mistake only where the runtime was named.
        if options.backend != ALL and isinstance(error, InputError):
            raise
        return EngineBench(engine.backend, engine.precision, "", False, str(error))
    sizes = sweep_sizes(engine, options.batches)
    found = _Measured()
    with session:
        gpu, gpu_note = _gpu(session.device)
        _measure(_steps(bundle, engine, session, options, source, sizes, found), engine.name, found)
        if gpu:
            gpu += _gpu(session.device)[0]
        cuda_graphs = session.cuda_graph_state
    # After the session is closed: the fresh processes are to have the machine to themselves.
    cold_start = partial(found.set_cold_start, bundle, engine, options.device, source)
    _measure([("cold start", cold_start)], engine.name, found)
    return EngineBench(
        backend=engine.backend,
        precision=engine.precision,
        device=session.device,
        ran=True,
        reason=found.reason,
        figures=tuple(found.figures),
        batches=tuple(found.batches),
        threads=tuple(found.threads),
        left_out=tuple(size for size in options.batches or () if size not in sizes),
        cold_start=found.cold_start,
        cuda_graphs=cuda_graphs,
        gpu=gpu,
        gpu_note=gpu_note,
    )


class _Measured:
    """What has been measured of one engine so far, and what failed."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []
        self.batches: list[BatchPoint] = []
        self.threads: list[ThreadPoint] = []
        self.cold_start: ColdStart | None = None
        self.failed: dict[str, list[str]] = {}  # why -> at what

    def set_cold_start(self, bundle: Bundle, engine: Engine, device: str, source: TimedImages) -> None:
        self.cold_start = measure_cold_start(bundle, engine, device, source.prepared[0])

    @property
    def reason(self) -> str:
        return "; ".join(f"{', '.join(where)}: {why}" for why, where in self.failed.items())


def _measure(steps: list[Step], name: str, found: _Measured) -> None:
    """Take the steps; one that fails is noted, and the next is tried."""
    with progress_bar(name, len(steps)) as advance:
        for what, step in steps:
            advance(0, what)
            try:
                step()
            except Exception as error:  # whatever a runtime throws: the other figures are still wanted
                found.failed.setdefault(first_line(error), []).append(what)
            advance(1, what)


def _steps(
    bundle: Bundle,
    engine: Engine,
    session: CheckedSession,
    options: BenchOptions,
    source: TimedImages,
    sizes: tuple[int, ...],
    found: _Measured,
) -> list[Step]:
    images, seconds = source.prepared, options.seconds

    def figure(stage: str) -> None:
        found.figures.append(measure_figure(stage, bundle, session, source, 3 * seconds))

    def batch(size: int) -> None:
        found.batches.append(measure_batch(session, images, size, seconds))

    def threads(count: int, sessions: int) -> None:
        with ExitStack() as stack:
            more = [
                stack.enter_context(
                    open_session(bundle, engine.backend, device=options.device, precision=engine.precision, check=False)
                )
                for _ in range(sessions - 1)
            ]
            found.threads.append(measure_threads([session, *more], images, count, seconds))

    steps: list[Step] = [(stage, partial(figure, stage)) for stage in STAGES]
    steps += [(f"batch {size}", partial(batch, size)) for size in sizes]
    steps += [(f"{count} threads on {sessions}", partial(threads, count, sessions)) for count, sessions in CONCURRENCY]
    return steps


def _gpu(device: str) -> tuple[tuple[nvml.GpuState, ...], str]:
    if device == "cpu":
        return (), ""
    try:
        return (nvml.gpu_state(),), ""
    except BackendUnavailable as error:
        return (), str(error)
