"""`samdeploy bench`: every engine of a bundle that runs here, or all of them against the alternatives."""

from __future__ import annotations

from datetime import UTC, datetime

from samdeploy.bench.alternatives.against import compare
from samdeploy.bench.alternatives.comparison import Comparison
from samdeploy.bench.bench_engine import bench_engine
from samdeploy.bench.bench_json import BenchReport, EngineBench
from samdeploy.bench.engines import ALL, Engine, check_sizes, select_engines
from samdeploy.bench.load import load_average, usable_cores
from samdeploy.bench.options import ALTERNATIVES, BenchOptions, check_seconds
from samdeploy.bench.timed_images import TimedImages, load_images
from samdeploy.bundle import Bundle
from samdeploy.errors import InputError, unknown
from samdeploy.evaluate.machine import machine, versions


def bench_bundle(bundle: Bundle, options: BenchOptions) -> BenchReport:
    """Latency, throughput, cold start and memory of each engine.

    An engine that cannot run here, or dies in the middle, is a row with its reason; the others are still measured.

    Raises:
        InputError: an unknown name, a batch size outside the profile, no image.
        BundleError: a file of the bundle was changed or is unsafe.
    """
    engines = _checked(bundle, options)
    # Before anything is loaded: the last minute's load is then that of other programs.
    load = load_average()
    images = load_images(bundle, options.images, options.data_root)
    return _report(bundle, images, load, engines=tuple(bench_engine(bundle, each, options, images) for each in engines))


def bench_against(bundle: Bundle, options: BenchOptions) -> BenchReport:
    """The bundle's engines and the alternatives, in turns, at each batch size.

    Raises:
        InputError, BundleError: as `bench_bundle`.
    """
    engines = _checked(bundle, options)
    for name in options.alternatives:
        if name not in ALTERNATIVES:
            expected = unknown("alternative", name, ALTERNATIVES)
            raise InputError(f"--alternatives: {expected}; for example --alternatives 'torch.compile,pytorch eager'")
    load = load_average()
    images = load_images(bundle, options.images, options.data_root)
    comparisons = tuple(
        compare(
            bundle,
            engines,
            options.alternatives,
            images,
            batch=batch,
            rounds=options.rounds,
            device=options.device,
        )
        for batch in options.batches or (1,)
    )
    return _report(bundle, images, load, comparisons=comparisons)


def _checked(bundle: Bundle, options: BenchOptions) -> tuple[Engine, ...]:
    check_seconds(options.seconds)
    if options.rounds < 5:
        raise InputError(f"--rounds: {options.rounds} found, at least 5 expected")
    if any(size < 1 for size in options.batches or (1,)):
        raise InputError(f"--batch: {', '.join(map(str, options.batches or ()))} found, sizes of at least 1 expected")
    engines = select_engines(bundle, options.backend, options.precision)
    check_sizes(engines, options.batches, named=options.backend != ALL)
    bundle.verify()
    return engines


def _report(
    bundle: Bundle,
    images: TimedImages,
    load: float | None,
    *,
    engines: tuple[EngineBench, ...] = (),
    comparisons: tuple[Comparison, ...] = (),
) -> BenchReport:
    return BenchReport(
        bundle=str(bundle.root),
        date=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        machine=machine(),
        versions=versions(),
        load_average=load,
        cores=usable_cores(),
        images=images.source,
        engines=engines,
        against=comparisons,
    )
