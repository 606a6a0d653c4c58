"""Images per second of sessions whose speed is known."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from samdeploy.bench.throughput import measure_batch, measure_threads


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_images_per_second_of_a_batch(sleeper: Callable, images: np.ndarray, batch: int) -> None:
    session = sleeper(0.01)
    found = measure_batch(session, images, batch, 0.15)
    assert {len(fed) for fed in session.fed} == {batch}
    assert found.batch == batch
    assert found.runs >= 5
    assert found.p90_ms >= found.p50_ms >= 10
    assert found.images_per_s == pytest.approx(1000 * batch / found.p50_ms)


def test_threads_add_up_where_the_session_lets_them(sleeper: Callable, images: np.ndarray) -> None:
    session = sleeper(0.02)  # sleeping threads do not need each other's core
    one = measure_threads([session], images, 1, 0.3)
    session.threads.clear()
    four = measure_threads([session], images, 4, 0.3)
    assert one.images_per_s <= 50
    assert four.images_per_s > 2.5 * one.images_per_s
    assert (four.threads, four.sessions) == (4, 1)
    assert len(session.threads) == 5  # the warm-up's own, and four


def test_a_session_that_lets_one_in_at_a_time_gains_nothing(sleeper: Callable, images: np.ndarray) -> None:
    session, lock = sleeper(0.02), threading.Lock()
    plain = session.run

    def locked(batch: np.ndarray) -> np.ndarray:
        with lock:
            return plain(batch)

    session.run = locked
    assert measure_threads([session], images, 4, 0.3).images_per_s <= 50


def test_each_thread_has_a_session_of_its_own(sleeper: Callable, images: np.ndarray) -> None:
    sessions = [sleeper(0.005) for _ in range(3)]
    found = measure_threads(sessions, images, 3, 0.1)
    assert (found.threads, found.sessions) == (3, 3)
    here = threading.get_ident()
    workers = [session.threads - {here} for session in sessions]
    assert [len(each) for each in workers] == [1, 1, 1]
    assert len(set.union(*workers)) == 3


def test_an_error_in_a_thread_comes_out_and_no_thread_is_left(sleeper: Callable, images: np.ndarray) -> None:
    before, start = threading.active_count(), time.perf_counter()
    with pytest.raises(RuntimeError, match="the GPU fell off the bus"):
        measure_threads([sleeper(0.001, dies_at=500)], images, 3, 20)
    assert time.perf_counter() - start < 15
    assert threading.active_count() == before
