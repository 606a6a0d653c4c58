"""Several processes behind one port: each accepts from the same listening socket, with an engine of its own.

A process that dies is replaced, and takes nothing with it but the requests that it was answering.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

from samdeploy.errors import SamdeployError

_LOG = logging.getLogger("samdeploy.serve")
# Where the workers' counters meet; Prometheus's client reads it when it is imported.
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
# Signals that end a server: SIGHUP comes from a terminal that is closed.
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Seconds before a worker that died is replaced: after the first death, and at most.
_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
# A worker that lived so long had a good start: the next pause is the first again.
_GOOD_START = 60.0

# What a worker runs: it serves at the socket until SIGTERM, and calls the last argument with a text when it is ready.
Serve = Callable[[Any, socket.socket, Callable[[str], None]], None]


class Workers:
    """The processes, as their parent sees them."""

    def __init__(
        self, serve: Serve, settings: Any, listening: socket.socket, count: int, *, longest_end: float
    ) -> None:
        """
        Args:
            serve: a function at the top of a module.
            settings: its first argument; it is pickled.
            listening: all accept from it.
            count: how many processes.
            longest_end: seconds after which one that was asked to end is killed.
        """
        self._serve, self._settings, self._listening, self._count = serve, settings, listening, count
        self._longest_end = longest_end
        # A fork would copy the threads' locks.
        self._context = multiprocessing.get_context("spawn")
        self._alive: dict[int, tuple[BaseProcess, float]] = {}  # by sentinel, with the time of its start
        self._ending = threading.Event()
        self._wake, self._woken = os.pipe()

    def run(self, announce: Callable[[str], None]) -> int:
        """Start all, the first one alone, and replace what dies, until one of `ENDING`; returns the exit code.

        Args:
            announce: called with the text of the first worker when it is ready; the others follow.
        """
        folder = Path(tempfile.mkdtemp(prefix="samdeploy-metrics-", dir=_memory()))
        os.environ[METRICS_FOLDER] = str(folder)
        for number in ENDING:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                signal.signal(number, self._asked_to_end)
        try:
            text = self._start_first()
            if text is None:
                return 0 if self._ending.is_set() else self._first_code()
            for _ in range(self._count - 1):
                self._start()  # answers when it is ready, and is replaced like any other where it dies before
            announce(text)
            self._watch()
            return 0
        finally:
            self._end()
            shutil.rmtree(folder, ignore_errors=True)

    def _start_first(self) -> str | None:
        """Its text, once it is ready; None where it could not start, which it has said: a bundle's fault, once."""
        process, ready = self._start()
        while not wait([ready, process.sentinel], timeout=0.1):
            if self._ending.is_set():
                return None
        with suppress(EOFError):
            text: str = ready.recv()
            return text
        return None

    def _first_code(self) -> int:
        process, _ = next(iter(self._alive.values()))
        process.join()
        code = process.exitcode or 1
        if code < 0:
            _LOG.error("the first worker was ended by signal %s before it was ready", -code)
        return code if code > 0 else 1

    def _start(self) -> tuple[BaseProcess, Connection]:
        ready, tell = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_work, args=(self._serve, self._settings, self._listening, tell))
        # Ctrl-C and a closed terminal reach the whole group, also a process that still loads; they are ours, who then
        # ask the others to end.
        own = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
        process.start()
        for number, handler in own.items():
            signal.signal(number, handler)
        tell.close()
        self._alive[process.sentinel] = process, time.monotonic()
        return process, ready

    def _watch(self) -> None:
        from prometheus_client.multiprocess import mark_process_dead  # after the folder is known

        pause = _PAUSE
        while not self._ending.is_set():
            for sentinel in wait([*self._alive, self._wake]):
                if sentinel == self._wake or self._ending.is_set():
                    return
                process, since = self._alive.pop(sentinel)  # type: ignore[arg-type]
                process.join()
                mark_process_dead(process.pid)  # type: ignore[no-untyped-call]
                pause = _PAUSE if time.monotonic() - since > _GOOD_START else min(2 * pause, _LONGEST_PAUSE)
                _LOG.error("worker %s ended with code %s; another one starts", process.pid, process.exitcode)
                if not self._ending.wait(pause):
                    self._start()

    def _asked_to_end(self, number: int, frame: FrameType | None) -> None:
        if self._ending.is_set() and number != signal.SIGHUP:  # asked twice; a closed terminal may send two by itself
            for process, _ in self._alive.values():
                process.kill()  # one that was stopped would not end by itself
        self._ending.set()
        os.write(self._woken, b"\0")

    def _end(self) -> None:
        until = time.monotonic() + self._longest_end
        for process, _ in self._alive.values():
            process.terminate()
        self._listening.close()  # else connections are taken that no worker accepts
        for process, _ in self._alive.values():
            process.join(max(0.0, until - time.monotonic()))
            if process.exitcode is None:
                _LOG.error("worker %s did not end within %g s, and is killed", process.pid, self._longest_end)
                process.kill()
                process.join()


def _memory() -> str | None:
    """Where the counters' files lie: the client maps them, and a map of a full disk is a worker's end (SIGBUS)."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _work(serve: Serve, settings: Any, listening: socket.socket, tell: Connection) -> None:
    """In the worker."""
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def ready(text: str) -> None:
        with suppress(OSError):  # the parent has gone
            tell.send(text)

    try:
        serve(settings, listening, ready)
    except SamdeployError as error:
        print(f"samdeploy: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    finally:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():  # it was killed, and cannot remove it
            shutil.rmtree(os.environ[METRICS_FOLDER], ignore_errors=True)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
