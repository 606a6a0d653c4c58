"""The queue before an engine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.serve.batcher import Batcher, Ran
from samdeploy.serve.errors import Late, QueueFull

FAR = float("inf")


def images(*values: int) -> UInt8Array:
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1)


class Engine:
    """Answers each image with its value; waits for `go` in each call."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.began = threading.Event()

    def run(self, batch: UInt8Array) -> Float32Array:
        self.batches.append(batch.ravel().tolist())
        self.began.set()
        assert self.go.wait(10)
        if 13 in batch:
            raise RuntimeError("the runtime failed")
        return batch.reshape(-1, 1).astype(np.float32)


def with_engine(use: Callable[[Engine, Batcher], object], **options: float) -> list[Ran]:
    """Run `use` beside an engine that is held up by its first image, 0."""
    engine, seen = Engine(), []
    settings = {"batch": 4, "delay": 0.0, "queue": 8} | options
    batcher = Batcher(engine.run, observe=seen.append, **settings)  # type: ignore[arg-type]

    async def main() -> None:
        first = batcher.submit(images(0), FAR)
        await asyncio.to_thread(engine.began.wait, 10)
        await use(engine, batcher)  # type: ignore[misc]
        engine.go.set()
        await first

    asyncio.run(main())
    batcher.close()
    return seen


def test_what_waits_is_one_batch_and_each_gets_its_own() -> None:
    async def use(engine: Engine, batcher: Batcher) -> None:
        waiting = [batcher.submit(images(*values), FAR) for values in ([1], [2, 3], [4, 5], [6])]
        assert batcher.waiting == 6
        engine.go.set()
        found = [(await future).ravel().tolist() for future in waiting]
        assert found == [[1], [2, 3], [4, 5], [6]]
        assert engine.batches == [[0], [1, 2, 3], [4, 5, 6]]

    seen = with_engine(use)
    assert [ran.images for ran in seen] == [1, 3, 3]
    assert [len(ran.waited) for ran in seen] == [1, 2, 2]


def test_a_full_queue_refuses() -> None:
    async def use(engine: Engine, batcher: Batcher) -> None:
        batcher.submit(images(1, 2, 3, 4), FAR)
        batcher.submit(images(5, 6, 7), FAR)
        with pytest.raises(QueueFull, match="7 images are waiting, at most 8 may"):
            batcher.submit(images(8, 9), FAR)
        batcher.submit(images(8), FAR)

    with_engine(use)


def test_what_is_late_or_cancelled_is_never_run() -> None:
    async def use(engine: Engine, batcher: Batcher) -> None:
        late = batcher.submit(images(1), time.monotonic() + 0.01)
        gone = batcher.submit(images(2), FAR)
        sound = batcher.submit(images(3), FAR)
        gone.cancel()
        await asyncio.sleep(0.05)
        engine.go.set()
        with pytest.raises(Late):
            await late
        assert (await sound).tolist() == [[3]]
        assert engine.batches == [[0], [3]]

    with_engine(use)


def test_a_failure_is_the_answer_to_its_batch_alone() -> None:
    async def use(engine: Engine, batcher: Batcher) -> None:
        bad = [batcher.submit(images(value), FAR) for value in (1, 2, 3, 13)]
        good = batcher.submit(images(5), FAR)
        engine.go.set()
        for future in bad:
            with pytest.raises(RuntimeError, match="the runtime failed"):
                await future
        assert (await good).tolist() == [[5]]

    with_engine(use)


def test_a_batch_waits_for_more_as_long_as_it_may() -> None:
    async def use(engine: Engine, batcher: Batcher) -> None:
        engine.go.set()
        first = batcher.submit(images(1), FAR)
        await asyncio.sleep(0.02)
        second = batcher.submit(images(2), FAR)
        await asyncio.gather(first, second)
        assert engine.batches[1:] == [[1, 2]]

    with_engine(use, delay=5.0, batch=2)


def test_nobody_waits_for_others_until_it_is_late() -> None:
    async def use(engine: Engine, batcher: Batcher) -> None:
        engine.go.set()
        await batcher.submit(images(1), time.monotonic() + 0.4)

    with_engine(use, delay=5.0)


def test_the_end_does_what_is_waiting() -> None:
    async def use(engine: Engine, batcher: Batcher) -> None:
        waiting = batcher.submit(images(1), FAR)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        await asyncio.sleep(0.02)
        engine.go.set()
        await closing
        assert (await waiting).tolist() == [[1]]

    with_engine(use)
