"""Time on the device between two CUDA events, and agreement with float32."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

Call = Callable[[], Any]

# One sample lasts about this long, so that the events' own resolution (0.5 µs) does not show.
_SAMPLE_MS = 4.0
_WARM_UP_MS = 100.0
_LEAST_SAMPLES, _MOST_SAMPLES, _ROUNDS = 10, 80, 5


def measure(calls: Mapping[str, Sequence[Call]], seconds: float, device: str) -> dict[str, dict[str, Any]]:
    """Time per call of every name, in ms, the names taking turns.

    Args:
        calls: per name, the same work on different input buffers, called in rotation on the current stream.
        seconds: of measuring per name.
        device: "cuda", or "cpu" (a wall clock, for rehearsals).

    Returns:
        Per name: median, p10, p90, min, max in ms per call; samples; calls per sample.  Host-side gaps between
        kernels count: that is what a caller of this runtime gets.
    """
    plans = {name: _plan(group, seconds, device) for name, group in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(_ROUNDS):
        for name, group in calls.items():
            repeats, samples = plans[name]
            for sample in range(-(-samples // _ROUNDS)):
                offset = turn + sample
                times[name].append(_sample(group, repeats, offset, device))
    return {name: _stats(values, plans[name][0]) for name, values in times.items()}


def _plan(group: Sequence[Call], seconds: float, device: str) -> tuple[int, int]:
    """Warm up; calls per sample and number of samples."""
    for call in group:
        call()
    once = _sample(group, 2, 0, device)
    warm = max(2, min(300, int(_WARM_UP_MS / once)))
    once = _sample(group, warm, 0, device)
    repeats = max(1, min(100, round(_SAMPLE_MS / once)))
    samples = int(seconds * 1000 / (repeats * once))
    return repeats, max(_LEAST_SAMPLES, min(_MOST_SAMPLES, samples))


def _sample(group: Sequence[Call], repeats: int, offset: int, device: str) -> float:
    if device == "cpu":
        start = time.perf_counter()
        for index in range(repeats):
            group[(offset + index) % len(group)]()
        return (time.perf_counter() - start) * 1000 / repeats
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for index in range(repeats):
        group[(offset + index) % len(group)]()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / repeats


def _stats(values: list[float], repeats: int) -> dict[str, Any]:
    tenths = statistics.quantiles(values, n=10)
    return {
        "median": round(statistics.median(values), 5),
        "p10": round(tenths[0], 5),
        "p90": round(tenths[-1], 5),
        "min": round(min(values), 5),
        "max": round(max(values), 5),
        "samples": len(values),
        "calls_per_sample": repeats,
    }


def agreement(found: torch.Tensor, expected: torch.Tensor) -> dict[str, Any]:
    """How far logits [n, K] are from the first n reference logits."""
    found, expected = found.double().cpu(), expected[: len(found)].double()
    return {
        "finite": bool(torch.isfinite(found).all()),
        "max_diff_of_range": float((found - expected).abs().max() / (expected.max() - expected.min())),
        "top1_same": int((found.argmax(1) == expected.argmax(1)).sum()),
        "top1_of": len(found),
    }
