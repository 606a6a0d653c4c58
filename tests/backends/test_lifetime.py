"""Who may be inside an engine, and when it is released."""

from __future__ import annotations

import gc
import os
import threading
import weakref

import pytest

from samdeploy.backends import lifetime
from samdeploy.backends.lifetime import Lifetime
from samdeploy.errors import InputError


class Engine:
    def __init__(self) -> None:
        self.released = 0

    def release(self) -> None:
        self.released += 1


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def life(engine: Engine) -> Lifetime:
    return Lifetime("this session", "open_session()", engine.release)


def test_it_is_released_at_once_if_nobody_is_inside(engine: Engine, life: Lifetime) -> None:
    with life:
        pass
    assert engine.released == 0
    life.close()
    life.close()
    assert engine.released == 1


def test_the_last_to_leave_releases_it(engine: Engine, life: Lifetime) -> None:
    with life:
        with life:
            life.close()
            assert engine.released == 0
            with pytest.raises(InputError, match=r"^this session is closed; open another with open_session"), life:
                pytest.fail("a closed engine was entered")
        assert engine.released == 0
    assert engine.released == 1


def test_an_error_inside_counts_as_leaving(engine: Engine, life: Lifetime) -> None:
    with pytest.raises(ZeroDivisionError), life:
        life.close()
        raise ZeroDivisionError
    assert engine.released == 1


def test_many_threads_and_one_that_closes(engine: Engine, life: Lifetime) -> None:
    seen_released, refused = [], []
    start = threading.Barrier(9)

    def work() -> None:
        start.wait()
        while True:
            try:
                with life:
                    seen_released.append(engine.released)
            except InputError:
                refused.append(1)
                return

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    start.wait()
    life.close()
    for thread in threads:
        thread.join(10)
    assert (len(refused), engine.released) == (8, 1)
    assert set(seen_released) <= {0}  # nobody was inside an engine that is gone


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_in_a_fork_it_may_not_be_entered_and_is_never_released() -> None:
    engine = Engine()
    life = Lifetime("this session", "open_session()", engine.release)
    inside = threading.Event()
    leave = threading.Event()

    def hold() -> None:
        with life, life._lock:  # the worst moment to fork: another thread holds the lock
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(10)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        text = "entered"
        try:
            try:
                with life:
                    pass
            except InputError as error:
                text = str(error)
            life.close()
            inherited = life in lifetime._INHERITED
            kept = weakref.ref(life)
            del life
            gc.collect()
            os.write(writing, f"{engine.released} {inherited} {kept() is not None} {text}".encode())
        finally:
            os._exit(0)
    leave.set()
    thread.join()
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    assert answer == (
        f"0 True True this session was opened in process {os.getpid()} and is used in its fork {child}; a runtime does "
        "not survive a fork: call open_session() in each process, or start them with "
        "multiprocessing.get_context('spawn')"
    )
    life.close()
    assert engine.released == 1


def test_it_is_not_kept_alive() -> None:
    gone = weakref.ref(Lifetime("this session", "open_session()", print))
    gc.collect()
    assert gone() is None
