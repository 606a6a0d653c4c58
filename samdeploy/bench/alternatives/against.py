"""The same network by the alternatives: all of them in one process, in turns, with ratios inside each round."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial

import numpy as np

from samdeploy.backends import open_session
from samdeploy.backends.difference import difference_shares, image_ranges
from samdeploy.backends.golden import GOLDEN_TOLERANCE
from samdeploy.bench.alternatives import tools
from samdeploy.bench.alternatives.comparison import Comparison, Row
from samdeploy.bench.engines import Engine
from samdeploy.bench.options import CUDA_ONLY, IN_TURNS, TOOLS
from samdeploy.bench.timed_images import TimedImages
from samdeploy.bench.turns import Ratio, Run, Turns, ratio, take_turns
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable, first_line
from samdeploy.evaluate.consistency.probes import EXPLODES
from samdeploy.evaluate.latency.measure import random_batches
from samdeploy.progress import progress_bar

# Alternatives compute in FP32 or, on a GPU, in TF32, which has the 10 bits of mantissa of FP16.  Ours compute in what
# they are called.  The limits are those that make an engine this bundle's network when it is opened.
ALTERNATIVE = "fp16"

_WARM_UP_RUNS = 3

_PLAIN = "onnxruntime plain export"
_TF32 = "convolutions in TF32, as is its default: 10 bits of mantissa, where fp32 has 23"


def compare(
    bundle: Bundle,
    engines: Sequence[Engine],
    alternatives: Sequence[str],
    images: TimedImages,
    *,
    batch: int,
    rounds: int,
    device: str,
) -> Comparison:
    """Time our engines and the alternatives at one batch size.  One that cannot run is a row with its reason."""
    ours = {f"samdeploy {engine.name}": engine for engine in engines}
    reasons: dict[str, str] = {}
    differences: dict[str, float] = {}
    batches = random_batches(images.prepared, batch)
    tf32 = _tf32_by_default(device)
    in_turns = [name for name in alternatives if name in IN_TURNS and (name not in CUDA_ONLY or _PLAIN in tf32)]
    names = [*ours, *in_turns]
    with ExitStack() as stack, progress_bar(f"against, batch {batch}", len(names) * (rounds + 1)) as advance:
        runs: dict[str, Run] = {}
        openers = {**_ours(bundle, ours, device, batch, stack), **_others(bundle, in_turns, device)}
        for name in names:
            advance(0, f"preparing {name}")
            try:
                run = openers[name]()
                precision = ours[name].precision if name in ours else ALTERNATIVE
                differences[name] = _difference(bundle, run, batch, precision)
                for index in range(_WARM_UP_RUNS):
                    run(batches[index % len(batches)])
                runs[name] = run
            except Exception as error:  # whatever a runtime or a compiler throws: the others' rows are still wanted
                reasons[name] = first_line(error)
            advance(1, "")
        turns = take_turns(runs, batches, rounds, lambda name: advance(1, name)) if runs else Turns({}, {})
    base = _base(turns, in_turns)
    rows = [_row(name, name in ours, turns, reasons, differences, base) for name in names]
    rows = [dataclasses.replace(row, note=_TF32) if row.ran and row.name in tf32 else row for row in rows]
    # The engines are closed by now: their threads and memory are the tools' own.
    base_ms = statistics.median(turns.times[base]) if base else None
    rows += [_tool_row(name, bundle, batch, base_ms) for name in alternatives if name in TOOLS]
    return Comparison(batch, rounds, base, tuple(rows))


def _ours(
    bundle: Bundle, engines: dict[str, Engine], device: str, batch: int, stack: ExitStack
) -> dict[str, Callable[[], Run]]:
    def opener(engine: Engine) -> Run:
        if not engine.takes(batch):
            raise BackendUnavailable(f"its profile takes batches of {engine.smallest} to {engine.largest}")
        return stack.enter_context(
            open_session(bundle, engine.backend, device=device, precision=engine.precision, check=False)
        ).run

    return {name: partial(opener, engine) for name, engine in engines.items()}


def _others(bundle: Bundle, names: Sequence[str], device: str) -> dict[str, Callable[[], Run]]:
    exported: list[bytes | str] = []

    def plain() -> bytes:
        """Exported once; where that fails, both runtimes say the same."""
        if not exported:
            from samdeploy.bench.alternatives import pytorch

            try:
                exported.append(pytorch.plain_export(bundle, bundle.golden()[0][:2]))
            except BackendUnavailable as error:
                exported.append(str(error))
        if isinstance(exported[0], str):
            raise BackendUnavailable(exported[0])
        return exported[0]

    def eager() -> Run:
        from samdeploy.bench.alternatives import pytorch

        return pytorch.eager(bundle, device)

    def compiled() -> Run:
        from samdeploy.bench.alternatives import pytorch

        return pytorch.compiled(bundle, device)

    def onnxruntime(*, tf32: bool = True) -> Run:
        from samdeploy.bench.alternatives import onnxruntime

        return onnxruntime.plain(plain(), device, tf32=tf32)

    def openvino() -> Run:
        from samdeploy.bench.alternatives import openvino

        if device == "cuda":
            raise BackendUnavailable("OpenVINO runs on the CPU; device cuda was asked for")
        return openvino.plain(plain(), device)

    openers: tuple[Callable[[], Run], ...] = (eager, compiled, onnxruntime, partial(onnxruntime, tf32=False), openvino)
    every = dict(zip(IN_TURNS, openers, strict=True))
    return {name: every[name] for name in names}


def _tf32_by_default(device: str) -> set[str]:
    """The alternatives that round to TF32 here unless they are told otherwise: those that compute on a GPU."""
    found: set[str] = set()
    with suppress(ImportError):
        from samdeploy.bench.alternatives import pytorch

        found |= {"pytorch eager", "torch.compile"} if pytorch.on_cuda(device) else set()
    with suppress(ImportError):
        from samdeploy.bench.alternatives import onnxruntime

        found |= {_PLAIN} if onnxruntime.on_cuda(device) else set()
    return found


def _difference(bundle: Bundle, run: Run, batch: int, precision: str) -> float:
    """Run the golden images at the very batch size that is timed, and compare with the trained network's logits.

    Raises:
        BackendUnavailable: the answers are another network's.
    """
    images, logits = bundle.golden()
    # The last batch is filled up from the start; an alternative may be made for one batch size alone.
    starts = range(0, len(images), batch)
    found = [np.array(run(images[np.arange(start, start + batch) % len(images)]), np.float32) for start in starts]
    ranges = image_ranges(logits)
    shares = difference_shares(np.concatenate(found)[: len(images)], logits, ranges)
    usual = ranges <= (EXPLODES if precision == "int8" else np.inf) * np.median(ranges)
    difference = float(shares[usual].max())
    allowed = GOLDEN_TOLERANCE[precision]
    if not difference <= allowed:
        raise BackendUnavailable(
            f"its logits differ from the trained network's by {difference:.1e} of their range, at most "
            f"{allowed:.0e} expected: not the same network"
        )
    return difference


def _base(turns: Turns, alternatives: Sequence[str]) -> str:
    alive = {name: statistics.median(times) for name, times in turns.times.items() if name not in turns.died}
    others = [name for name in alive if name in alternatives]
    return min(others or alive, key=alive.__getitem__, default="")


def _row(name: str, ours: bool, turns: Turns, reasons: dict[str, str], differences: dict[str, float], base: str) -> Row:
    reason = reasons.get(name) or turns.died.get(name, "")
    times = turns.times.get(name, [])
    if not times:
        return Row(name, ours, reason=reason, difference=differences.get(name))
    p10, p50, p90 = (float(value) for value in np.percentile(times, [10, 50, 90]))
    relative = ratio(times, turns.times[base]) if base else None
    return Row(name, ours, not reason, reason, p50, p10, p90, relative, differences.get(name))


def _tool_row(name: str, bundle: Bundle, batch: int, base_ms: float | None) -> Row:
    tool = {"trtexec": tools.trtexec, "polygraphy": tools.polygraphy}[name]
    try:
        found = tool(bundle, batch)
    except BackendUnavailable as error:
        return Row(name, ours=False, reason=str(error))
    relative = None if base_ms is None else Ratio(base_ms / found.ms, base_ms / found.ms, base_ms / found.ms)
    note = f"{found.what}; in a process of its own, not in turns"
    return Row(name, ours=False, ran=True, p50_ms=found.ms, times_base=relative, note=note)
