"""Images per second: over batch sizes, and from several threads at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from samdeploy.arrays import UInt8Array
from samdeploy.backends.session import Session
from samdeploy.evaluate.latency.clock import host_timer, time_runs, warm_up
from samdeploy.evaluate.latency.measure import random_batches

# Fewer runs than for latency: of a large batch each run averages over many images already.
LEAST_RUNS = 5
MOST_RUNS = 1000


@dataclass(frozen=True, slots=True)
class BatchPoint:
    """One batch size, host memory to host memory.

    Attributes:
        images_per_s: batch / p50.
    """

    batch: int
    p50_ms: float
    p90_ms: float
    runs: int
    images_per_s: float


@dataclass(frozen=True, slots=True)
class ThreadPoint:
    """Single images from several threads at once.

    Attributes:
        threads: each calls `run` again as soon as it has its answer.
        sessions: 1, which all threads share, or as many as threads.
        images_per_s: of all threads together.
    """

    threads: int
    sessions: int
    images_per_s: float


def measure_batch(session: Session, images: UInt8Array, batch: int, seconds: float) -> BatchPoint:
    """Time batches of one size for about `seconds`, after a warm-up.

    Args:
        images: uint8 [N, H, W, 3]; batches larger than N hold images more than once.
    """
    timer, inputs = host_timer(session.run), random_batches(images, batch)
    warm_up(timer, inputs, seconds)
    times = time_runs(timer, inputs, runs=MOST_RUNS, least_runs=LEAST_RUNS, least_s=0, limit_s=seconds)
    p50, p90 = (float(value) for value in np.percentile(times, [50, 90]))
    return BatchPoint(batch, p50, p90, len(times), 1000 * batch / p50)


def measure_threads(sessions: Sequence[Session], images: UInt8Array, threads: int, seconds: float) -> ThreadPoint:
    """Let `threads` threads run single images for `seconds`; thread i uses session i, modulo their number.

    Raises:
        Exception: the first that a session raised in any thread.
    """
    inputs = random_batches(images)
    for session in sessions:
        warm_up(host_timer(session.run), inputs, seconds / 2)
    done = [0] * threads
    starts, ends = [0.0] * threads, [0.0] * threads
    errors: list[BaseException] = []
    together = threading.Barrier(threads + 1)
    stop = threading.Event()

    def work(number: int) -> None:
        session, count = sessions[number % len(sessions)], 0
        together.wait()
        starts[number] = time.perf_counter()
        try:
            while not (count and stop.is_set()):
                session.run(inputs[(number + count) % len(inputs)])
                count += 1
                done[number], ends[number] = count, time.perf_counter()
        except BaseException as error:
            errors.append(error)
            stop.set()

    workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(threads)]
    for worker in workers:
        worker.start()
    together.wait()
    try:
        stop.wait(seconds)
    finally:  # Ctrl-C, too, ends the threads before their sessions are closed
        stop.set()
        for worker in workers:
            worker.join()
    if errors:
        raise errors[0]
    # Up to the last answer, which comes after the stop.
    return ThreadPoint(threads, len(sessions), sum(done) / (max(ends) - min(starts)))
