"""Requests that wait for one engine, in batches as large as they come: while one runs, the next gathers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.serve.errors import Late, QueueFull, RequestError

Clock = time.monotonic


@dataclass(frozen=True, slots=True)
class Ran:
    """One call of the engine.

    Attributes:
        images: that it was given.
        waited: seconds in the queue, of each request.
        seconds: that it took.
        waiting: images in the queue after it.
    """

    images: int
    waited: list[float]
    seconds: float
    waiting: int


@dataclass(slots=True)
class _Job:
    pixels: UInt8Array
    deadline: float
    future: asyncio.Future[Float32Array]
    since: float = field(default_factory=Clock)


class Batcher:
    """One thread that runs an engine, and the bounded queue before it.

    The loop that calls `submit` must be the one that the futures belong to; everything else is any thread's.
    """

    def __init__(
        self,
        run: Callable[[UInt8Array], Float32Array],
        *,
        batch: int,
        delay: float,
        queue: int,
        observe: Callable[[Ran], None] = lambda ran: None,
    ) -> None:
        """
        Args:
            run: uint8 [N, H, W, 3] to float32 [N, K], for N up to `batch`; called by one thread.
            batch: images per call, at most.
            delay: seconds that the first of a batch may wait for more, but no longer than half of the time until a
                deadline; 0 takes what is there when the engine is free.
            queue: images that may wait, at most.
            observe: told of each call, in the thread of the engine.
        """
        self.batch, self.delay, self.queue = batch, delay, queue
        self._run, self._observe = run, observe
        self._jobs: deque[_Job] = deque()
        self._waiting = 0  # images
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="samdeploy-engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return self._waiting

    def submit(self, pixels: UInt8Array, deadline: float) -> asyncio.Future[Float32Array]:
        """The logits of some images, when they are there.

        A future that is cancelled before the engine takes its images is never run.

        Args:
            pixels: uint8 [N, H, W, 3], 1 <= N <= `batch`; must not change any more.
            deadline: of `time.monotonic`; later the engine does not begin it.

        Raises:
            QueueFull: the queue has no room for them.
        """
        job = _Job(pixels, deadline, asyncio.get_running_loop().create_future())
        with self._changed:
            if self._closing:
                raise RequestError(503, "the server is ending")
            if self._waiting + len(pixels) > self.queue:
                raise QueueFull(f"{self._waiting} images are waiting, at most {self.queue} may; try again later")
            self._jobs.append(job)
            self._waiting += len(pixels)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Let the engine do what is in the queue, and end its thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while jobs := self._next():
            now = Clock()
            jobs = [job for job in jobs if not job.future.cancelled()]
            late = [job for job in jobs if job.deadline < now]
            jobs = [job for job in jobs if job.deadline >= now]
            _hand_over(late, [Late() for _ in late])
            if not jobs:
                continue
            pixels = jobs[0].pixels if len(jobs) == 1 else np.concatenate([job.pixels for job in jobs])
            try:
                logits = self._run(pixels)
            except Exception as error:  # whatever the runtime raises is the answer to these requests, not our end
                _hand_over(jobs, [error] * len(jobs))
                continue
            ends = np.cumsum([len(job.pixels) for job in jobs])[:-1]
            _hand_over(jobs, np.split(logits, ends) if len(jobs) > 1 else [logits])
            self._observe(Ran(len(pixels), [now - job.since for job in jobs], Clock() - now, self._waiting))

    def _next(self) -> list[_Job]:
        """What the engine shall run now; empty at the end."""
        with self._changed:
            while not self._jobs and not self._closing:
                self._changed.wait()
            if self.delay and self._jobs:
                while self._waiting < self.batch and not self._closing and (left := self._until() - Clock()) > 0:
                    self._changed.wait(left)
            taken: list[_Job] = []
            images = 0
            while self._jobs and images + len(self._jobs[0].pixels) <= self.batch:
                job = self._jobs.popleft()
                images += len(job.pixels)
                taken.append(job)
            self._waiting -= images
            return taken

    def _until(self) -> float:
        """When the engine begins though the batch is not full: nobody waits more than half of its time for others."""
        halves = ((job.since + job.deadline) / 2 for job in self._jobs)
        return min(self._jobs[0].since + self.delay, *halves)


def _hand_over(jobs: Sequence[_Job], answers: Sequence[Float32Array | Exception]) -> None:
    """Wake those who wait for these answers: one call of their loop for the whole batch."""
    if jobs:
        loop = jobs[0].future.get_loop()
        try:
            loop.call_soon_threadsafe(_resolve, list(zip([job.future for job in jobs], answers, strict=True)))
        except RuntimeError:  # the loop has ended, and nobody waits any more
            return


def _resolve(pairs: list[tuple[asyncio.Future[Float32Array], Float32Array | Exception]]) -> None:
    for future, answer in pairs:
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
