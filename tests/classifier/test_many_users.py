"""Many threads, asyncio, forks and closing: a classifier gives the answers that one user alone would get."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from samdeploy import Classifier, Prediction
from samdeploy.errors import InputError, SamdeployError
from tests.classifier.conftest import IMAGES, THREADS, TOLERANCE, same


def test_many_threads_get_the_answers_of_one(classifier: Classifier, expected: list[Prediction]) -> None:
    start = threading.Barrier(THREADS)

    def work(_: int) -> list[Prediction]:
        start.wait()
        return [classifier.predict(image) for image in IMAGES]

    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(work, range(THREADS)):
            for one, other in zip(found, expected, strict=True):
                assert one.label == other.label
                assert one.probability == other.probability
                np.testing.assert_array_equal(one.logits, other.logits)


def test_streams_beside_one_another(classifier: Classifier, expected: list[Prediction]) -> None:
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda batch: list(classifier.stream(IMAGES, batch=batch)), (3, 8, 16, 40)):
            same(found, expected)


def test_asyncio_waits_in_threads(classifier: Classifier, expected: list[Prediction]) -> None:
    beats = 0

    async def heart() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.001)
            beats += 1

    async def main() -> list[Prediction]:
        beating = asyncio.create_task(heart())
        found = await asyncio.gather(*(asyncio.to_thread(classifier.predict, image) for image in IMAGES * 3))
        beating.cancel()
        return found

    same(asyncio.run(main()), expected * 3)
    assert beats > 3  # the loop was not held up


def test_a_cancelled_wait_leaves_the_classifier_sound(classifier: Classifier, expected: list[Prediction]) -> None:
    async def main() -> list[Prediction]:
        waiting = [asyncio.create_task(asyncio.to_thread(classifier.predict, image)) for image in IMAGES]
        await asyncio.sleep(0)
        for task in waiting[::2]:
            task.cancel()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(answer, asyncio.CancelledError) for answer in found[::2])
        same(found[1::2], expected[1::2])
        return [await asyncio.to_thread(classifier.predict, image) for image in IMAGES]

    same(asyncio.run(main()), expected)


def test_closing_while_others_predict(open_one: Callable[..., Classifier]) -> None:
    """Answers that were under way come, whole; whoever comes later is told that it is closed; nothing crashes."""
    for _ in range(3):
        classifier = open_one()
        expected: list[object] = [prediction.logits for prediction in classifier.predict_batch(IMAGES[:4])]
        outcomes: list[str] = []

        def work(
            classifier: Classifier = classifier, expected: list[object] = expected, outcomes: list[str] = outcomes
        ) -> None:
            while True:
                try:
                    answers = [classifier.predict(image).logits for image in IMAGES[:4]]
                except SamdeployError as error:
                    outcomes.append(f"{type(error).__name__}: {error}")
                    return
                np.testing.assert_allclose(answers, expected, atol=TOLERANCE * np.ptp(expected))  # type: ignore[arg-type]

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        classifier.close()
        for thread in threads:
            thread.join(30)
        text = f"InputError: this {classifier.session.backend} session is closed; open another with Classifier.open()"
        assert outcomes == [text] * THREADS


def test_a_closed_classifier_says_so(open_one: Callable[..., Classifier]) -> None:
    classifier = open_one()
    running = classifier.stream(IMAGES, batch=2)
    next(running)
    classifier.close()
    classifier.close()
    for use in (
        lambda: classifier.predict(IMAGES[0]),
        lambda: classifier.predict_batch(IMAGES),
        lambda: classifier.predict_batch([]),
        lambda: classifier.stream(IMAGES),
        lambda: classifier.stream([]),
        lambda: classifier.__enter__(),
        lambda: list(running),
    ):
        with pytest.raises(InputError, match="session is closed"):
            use()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("samdeploy-")] == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_must_open_its_own(classifier: Classifier, expected: list[Prediction]) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        lines = []
        try:
            for use in (classifier.predict, lambda one: classifier.stream([one])):
                try:
                    use(IMAGES[0])
                except InputError as error:
                    lines.append(str(error))
            classifier.close()
            lines.append("closed")
            os.write(writing, "\n".join(lines).encode())
        finally:
            os._exit(0)  # as multiprocessing does
    os.close(writing)
    with os.fdopen(reading) as pipe:
        lines = pipe.read().splitlines()
    os.waitpid(child, 0)
    text = (
        f"this {classifier.session.backend} session was opened in process {os.getpid()} and is used in its fork {child}"
    )
    assert len(lines) == 3 and lines[2] == "closed"
    assert all(line.startswith(text) and "call Classifier.open() in each process" in line for line in lines[:2])
    same([classifier.predict(IMAGES[0])], expected[:1])  # what the child did is nothing to the parent
