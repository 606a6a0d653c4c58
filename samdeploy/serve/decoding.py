"""Threads that decode images, and how many may wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from samdeploy.serve.batcher import Clock
from samdeploy.serve.errors import Late, QueueFull

T = TypeVar("T")


class Decoding:
    """The images of one model that are being decoded."""

    def __init__(self, most: int) -> None:
        """`most`: images at a time, those that wait for a thread among them."""
        self._most, self._count = most, 0

    async def run(self, pool: ThreadPoolExecutor, deadline: float, calls: Sequence[Callable[[], T]]) -> list[T]:
        """What the calls return, each of which decodes an image.

        Raises:
            RequestError: too many are being decoded, or too late.
        """
        if self._count + len(calls) > self._most:
            raise QueueFull(f"{self._count} images are being decoded, at most {self._most} may")
        self._count += len(calls)
        loop = asyncio.get_running_loop()
        work = [loop.run_in_executor(pool, _in_time, deadline, call) for call in calls]
        try:
            return await asyncio.gather(*work)
        except BaseException:
            forget(work)
            raise
        finally:
            self._count -= len(calls)


def forget(futures: list[asyncio.Future[Any]]) -> None:
    """Cancel all, and empty the list.

    An error's traceback holds its caller's frame: with the future in it, which holds the error, the request would stay
    in memory until Python looks for cycles.
    """
    while futures:
        futures.pop().cancel()


def _in_time(deadline: float, call: Callable[[], T]) -> T:
    if Clock() > deadline:
        raise Late
    return call()
