"""Images through an engine without a pause: while one batch is inferred, the next ones are decoded and resized."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from samdeploy.arrays import UInt8Array
from samdeploy.errors import AnswerError, ImageError, InputError
from samdeploy.images.decode import Source

Answer = TypeVar("Answer")

# Batches between the reading of their images and the handing over of their answers.  One is inferred and one is
# prepared; the third keeps both busy when a batch takes longer than the one before.
_UNDER_WAY = 3


class Stream(Generic[Answer]):
    """How images become answers: the threads, and what they do.

    Decoding and resizing run in several threads, because Pillow releases Python's lock in both; inference runs in one
    of its own, batch after batch.  The sources are read, and the answers are handed over, in the thread of the caller:
    an iterable may belong to a thread (a database, a camera), and its exceptions come with their own traceback.
    """

    def __init__(
        self,
        prepare: Callable[[Source], UInt8Array],
        infer: Callable[[UInt8Array], Sequence[Answer | AnswerError]],
        shape: tuple[int, int, int],
        *,
        batch: int,
        threads: int | None,
    ) -> None:
        """
        Args:
            prepare: an image to uint8 [H, W, 3] RGB; its ImageErrors are answers too.
            infer: uint8 [N, H, W, 3] to N answers, for N up to `batch`; called by one thread at a time.  Its
                AnswerErrors get their image's name.
            shape: (H, W, 3).
            batch: images per call of `infer`; the last one, and one with broken images, has fewer.
            threads: that prepare; None: as many as there are processors for this process.
        """
        self._prepare = prepare
        self._infer = infer
        self._shape = shape
        self._batch = batch
        self._threads = threads or processors()

    def answers(self, sources: Iterable[Source]) -> Generator[Answer | ImageError, None, None]:
        """One answer for each source, in their order: see `Classifier.stream`."""
        process = os.getpid()
        preparing = ThreadPoolExecutor(self._threads, "samdeploy-prepare")
        inferring = ThreadPoolExecutor(1, "samdeploy-infer")
        under_way: deque[Future[list[Answer | ImageError]]] = deque()
        failure: Exception | None = None
        is_interrupted = False
        try:
            iterator = iter(sources)
            number, has_more = 0, True
            while has_more:
                pixels = self._room()
                filled: list[Future[ImageError | None]] = []
                names: list[str] = []
                while has_more and len(filled) < self._batch:
                    # What is ready goes out before the next source is waited for, which may take its time.
                    while under_way and (len(under_way) == _UNDER_WAY or under_way[0].done()):
                        yield from under_way.popleft().result()
                        _check_process(process)
                    try:
                        source = next(iterator)
                    except StopIteration:
                        has_more = False
                    except Exception as error:  # the caller's own; it comes after the answers to what was before it
                        failure, has_more = error, False
                    else:
                        filled.append(preparing.submit(self._fill, pixels, len(filled), source, number))
                        names.append(_name(source, number))
                        number += 1
                if filled:
                    under_way.append(inferring.submit(self._answer, pixels, filled, names))
            while under_way:
                yield from under_way.popleft().result()
                _check_process(process)
        except KeyboardInterrupt:
            is_interrupted = True  # one of the threads may wait for a disk that does not answer: Ctrl-C does
            raise
        finally:
            if os.getpid() == process:  # else these threads are not here to be waited for
                preparing.shutdown(wait=not is_interrupted, cancel_futures=True)
                inferring.shutdown(wait=not is_interrupted, cancel_futures=True)
        if failure is not None:
            raise failure

    def _room(self) -> UInt8Array:
        try:
            return np.empty((self._batch, *self._shape), np.uint8)
        except (MemoryError, ValueError):  # ValueError: more than an array may have
            needed = self._batch * math.prod(self._shape) >> 20
            raise InputError(
                f"batch: {self._batch} found; the images of one batch would take {needed:,} MiB, which are not to "
                "be had; take a smaller one"
            ) from None

    def _fill(self, pixels: UInt8Array, place: int, source: Source, number: int) -> ImageError | None:
        try:
            pixels[place] = self._prepare(source)
        except ImageError as error:
            return error if isinstance(source, str | Path) else ImageError(f"{_name(source, number)}: {error}")
        return None

    def _answer(
        self, pixels: UInt8Array, filled: Sequence[Future[ImageError | None]], names: Sequence[str]
    ) -> list[Answer | ImageError]:
        errors = [future.result() for future in filled]
        sound = [place for place, error in enumerate(errors) if error is None]
        if not sound:
            return [error for error in errors if error is not None]
        is_whole = len(sound) == len(errors)  # then the batch is handed on as it lies
        answers = iter(self._infer(pixels[: len(errors)] if is_whole else pixels[sound]))
        return [
            _named(next(answers), name) if error is None else error for error, name in zip(errors, names, strict=True)
        ]


def _name(source: object, number: int) -> str:
    return str(source) if isinstance(source, str | Path) else f"image {number} of the stream"


def _named(answer: Answer | AnswerError, name: str) -> Answer | AnswerError:
    return AnswerError(f"{name}: {answer}") if isinstance(answer, AnswerError) else answer


def processors() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_process(process: int) -> None:
    if os.getpid() != process:
        raise InputError(
            f"this stream was started in process {process} and is continued in its fork {os.getpid()}, where its "
            "threads are not; start a stream in each process"
        )
