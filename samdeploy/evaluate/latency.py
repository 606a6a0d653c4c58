"""How long one picture takes, from host memory to host memory."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from samdeploy.backends import Session
from samdeploy.bundle import UInt8Array

# Enough for a p99 that is not simply the slowest run; the limit keeps a slow network from holding up the verdict.
RUNS = 300
MIN_RUNS = 30
WARM_UP_RUNS = 20
LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds for one picture, prepared in host memory, until its logits are in host memory."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    runs: int


def measure_latency(session: Session, images: UInt8Array) -> Latency:
    """Time single pictures after a warm-up, one call at a time, real pictures in turn.

    Args:
        session: an open engine.
        images: uint8 [N, H, W, 3].
    """
    _time_runs(session, images, WARM_UP_RUNS, LIMIT_S / 2)
    times = _time_runs(session, images, RUNS, LIMIT_S)
    p50, p95, p99 = np.percentile(np.array(times) * 1e3, [50, 95, 99])
    return Latency(float(p50), float(p95), float(p99), len(times))


def _time_runs(session: Session, images: UInt8Array, runs: int, limit_s: float) -> list[float]:
    """Seconds of each run; at most `runs`, fewer (but not below MIN_RUNS of them) once `limit_s` is over."""
    times: list[float] = []
    end = time.perf_counter() + limit_s
    while len(times) < runs and (len(times) < min(runs, MIN_RUNS) or time.perf_counter() < end):
        index = len(times) % len(images)
        batch = images[index : index + 1]
        start = time.perf_counter()
        session.run(batch)
        times.append(time.perf_counter() - start)
    return times
