"""`Stream` with an engine of plain numpy: order, memory, threads, errors, ends."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
import pytest
from numpy.typing import NDArray

from samdeploy.errors import ImageError, InputError
from samdeploy.images.decode import Source
from samdeploy.images.stream import _UNDER_WAY, Stream

UInt8Array = NDArray[np.uint8]
SHAPE = (2, 3, 3)
WAIT_S = 10.0


def pixels(number: int) -> UInt8Array:
    return np.full(SHAPE, number % 256, np.uint8)


class Engine:
    """Answers with the first pixel of each image; remembers what it was given."""

    def __init__(self, *, slow_prepare: float = 0.0, slow_infer: float = 0.0) -> None:
        self.batches: list[int] = []
        self.prepared = 0
        self.in_prepare = self.most_in_prepare = 0
        self.overlapped = False
        self._infers = False
        self._slow = slow_prepare, slow_infer
        self._lock = threading.Lock()

    def prepare(self, source: Source) -> UInt8Array:
        with self._lock:
            self.in_prepare += 1
            self.most_in_prepare = max(self.most_in_prepare, self.in_prepare)
            self.overlapped |= self._infers
        time.sleep(self._slow[0])
        with self._lock:
            self.in_prepare -= 1
            self.prepared += 1
        if isinstance(source, str | bytes):
            raise ImageError(f"{source!r}: not an image")
        assert isinstance(source, np.ndarray)
        return source

    def infer(self, pixels: UInt8Array) -> Sequence[int]:
        self.batches.append(len(pixels))
        self._infers = True
        time.sleep(self._slow[1])
        self._infers = False
        return [int(image[0, 0, 0]) for image in pixels]

    def stream(self, *, batch: int = 4, threads: int | None = 2) -> Stream[int]:
        return Stream(self.prepare, self.infer, SHAPE, batch=batch, threads=threads)


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("samdeploy-")]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert own_threads() == []


@pytest.mark.parametrize("batch", [1, 3, 4, 50])
@pytest.mark.parametrize("count", [0, 1, 4, 21])
def test_answers_come_in_order(count: int, batch: int) -> None:
    engine = Engine()
    assert list(engine.stream(batch=batch).answers(pixels(n) for n in range(count))) == list(range(count))
    assert sum(engine.batches) == count
    assert engine.batches == [min(batch, count - start) for start in range(0, count, batch)]


def test_order_holds_when_images_take_different_times() -> None:
    engine = Engine()
    delays = np.random.default_rng(0).uniform(0, 0.004, 60)

    def prepare(source: Source) -> UInt8Array:
        assert isinstance(source, np.ndarray)
        time.sleep(delays[int(source[0, 0, 0])])
        return source

    running: Stream[int] = Stream(prepare, engine.infer, SHAPE, batch=5, threads=8)
    assert list(running.answers(map(pixels, range(60)))) == list(range(60))


def test_images_are_prepared_in_parallel_and_while_the_engine_works() -> None:
    engine = Engine(slow_prepare=0.005, slow_infer=0.01)
    start = time.perf_counter()
    list(engine.stream(threads=4).answers(map(pixels, range(80))))
    assert time.perf_counter() - start < 0.9 * (80 * 0.005 + 20 * 0.01)  # one after another it takes 0.6 s
    assert engine.overlapped
    assert 2 <= engine.most_in_prepare <= 4


def test_an_endless_iterable_is_read_little_ahead() -> None:
    engine = Engine()
    read = 0

    def endless() -> Iterator[Source]:
        nonlocal read
        while True:
            read += 1
            yield pixels(read)

    with closing(engine.stream(batch=4).answers(endless())) as answers:
        for taken in range(1, 100):
            assert next(answers) == taken % 256
            assert read - taken <= (_UNDER_WAY + 1) * 4
    assert engine.prepared <= read


def test_nothing_is_read_and_no_thread_started_before_the_first_answer_is_asked_for() -> None:
    sources = iter(map(pixels, range(3)))
    answers = Engine().stream().answers(sources)
    assert own_threads() == []
    assert int(next(sources)[0, 0, 0]) == 0
    assert list(answers) == [1, 2]


def test_what_is_done_goes_out_before_the_next_image_is_waited_for() -> None:
    engine = Engine()
    asked: list[int] = []

    def camera() -> Iterator[Source]:
        for number in range(3):
            asked.append(number)
            if number:
                start = time.monotonic()
                while len(engine.batches) < number and time.monotonic() - start < WAIT_S:
                    time.sleep(0.001)
                time.sleep(1.0)  # the answer is on its way from the engine's thread, on a busy machine too
            yield pixels(number)

    with closing(engine.stream(batch=1).answers(camera())) as answers:
        assert next(answers) == 0
        assert asked in ([0], [0, 1])  # an answer may be ready before the next image is asked for at all


def test_an_early_end_ends_the_threads_and_what_is_under_way() -> None:
    engine = Engine(slow_prepare=0.002, slow_infer=0.01)
    answers = engine.stream().answers(map(pixels, range(10_000)))
    assert next(answers) == 0
    assert own_threads() != []
    start = time.perf_counter()
    answers.close()
    assert time.perf_counter() - start < 1.0
    assert own_threads() == []
    assert engine.prepared < 40
    assert list(answers) == []


def test_a_stream_that_is_forgotten_ends_too() -> None:
    answers = Engine().stream().answers(map(pixels, range(100)))
    next(answers)
    del answers
    assert own_threads() == []


def test_broken_images_keep_their_places() -> None:
    engine = Engine()
    sources: list[Source] = [pixels(0), b"x", pixels(2), "file.png", b"y", b"y", b"y", b"y", pixels(8)]
    found = list(engine.stream(batch=4).answers(sources))
    assert [answer for answer in found if isinstance(answer, int)] == [0, 2, 8]
    texts = {place: str(answer) for place, answer in enumerate(found) if isinstance(answer, ImageError)}
    assert texts == {
        1: "image 1 of the stream: b'x': not an image",
        3: "'file.png': not an image",  # its name is enough
        **{place: f"image {place} of the stream: b'y': not an image" for place in (4, 5, 6, 7)},
    }
    assert engine.batches == [2, 1]  # a batch of broken images never reaches the engine


@pytest.mark.parametrize("error", [ValueError("mine"), OSError("disk"), ImageError("an image of mine")])
def test_the_iterables_own_exception_comes_after_what_was_before_it(error: Exception) -> None:
    def sources() -> Iterator[Source]:
        yield from map(pixels, range(6))
        raise error

    found = []
    with pytest.raises(type(error)) as caught:
        for answer in Engine().stream(batch=4).answers(sources()):
            found.append(answer)  # noqa: PERF402 - extend would lose what came before the exception
    assert found == list(range(6))
    assert caught.value is error
    assert "in sources" in "".join(traceback.format_exception(caught.value))


def test_ctrl_c_in_the_iterable_is_not_kept_back() -> None:
    def sources() -> Iterator[Source]:
        yield pixels(0)
        raise KeyboardInterrupt

    engine = Engine(slow_prepare=0.3)
    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        next(engine.stream(batch=4).answers(sources()))
    assert time.perf_counter() - start < 0.2  # the image that is under way, on a slow disk perhaps, is not waited for
    while own_threads() and time.perf_counter() - start < WAIT_S:
        time.sleep(0.01)


def test_an_iterable_that_is_none() -> None:
    with pytest.raises(TypeError, match="not iterable"):
        next(Engine().stream().answers(5))  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["prepare", "infer"])
def test_a_defect_of_the_engine_is_raised(where: str) -> None:
    engine = Engine()

    def fail(_: object) -> Sequence[int]:
        raise MemoryError("no room")

    running: Stream[int] = Stream(
        fail if where == "prepare" else engine.prepare,  # type: ignore[arg-type]
        fail if where == "infer" else engine.infer,
        SHAPE,
        batch=2,
        threads=2,
    )
    with pytest.raises(MemoryError, match="no room"):
        list(running.answers(map(pixels, range(100))))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_stream_is_not_continued_in_a_fork() -> None:
    answers = Engine().stream(batch=1).answers(map(pixels, range(100)))
    next(answers)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        text = "no error"
        try:
            next(answers)
        except InputError as error:
            text = str(error)
        finally:
            os.write(writing, text.encode())
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == (
            f"this stream was started in process {os.getpid()} and is continued in its fork {child}, where its threads "
            "are not; start a stream in each process"
        )
    assert next(answers) == 1  # the parent goes on
    answers.close()
