"""When a session may be used: by many threads at once, until it is closed, and in no process but its own."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType

from samdeploy.errors import InputError

_OPEN: weakref.WeakSet[Lifetime] = weakref.WeakSet()
# What a fork brought into this process stays as it is: a destructor would wait for threads that were never here.
_INHERITED: list[Lifetime] = []
os.register_at_fork(after_in_child=lambda: _INHERITED.extend(_OPEN))


class Lifetime:
    """Counts who is inside an engine, so that it is released when nobody is.

    >>> lifetime = Lifetime("this openvino session", "open_session()", engine.close)
    >>> with lifetime:      # by any thread; raises InputError after close(), or in a child process
    ...     engine.run(batch)
    >>> lifetime.close()    # at once, or when the last that is inside leaves
    """

    def __init__(self, name: str, opener: str, release: Callable[[], object]) -> None:
        """`name` and `opener` stand in messages; `release` is called once, by whoever is the last."""
        self._name, self._opener, self._release = name, opener, release
        self._process = os.getpid()
        self._inside = 0
        self._is_closed = False
        # Reentrant: a signal handler that closes runs in the middle of this code.
        self._lock = threading.RLock()
        _OPEN.add(self)

    def __enter__(self) -> None:
        # The threads of a runtime, and CUDA's context, do not survive a fork: calls hang, crash or answer wrongly.
        # Before the lock: a thread that did not survive the fork may have held it.
        if os.getpid() != self._process:
            raise InputError(
                f"{self._name} was opened in process {self._process} and is used in its fork {os.getpid()}; a runtime "
                f"does not survive a fork: call {self._opener} in each process, or start them with "
                "multiprocessing.get_context('spawn')"
            )
        with self._lock:
            if self._is_closed:
                raise InputError(f"{self._name} is closed; open another with {self._opener}")
            self._inside += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._lock:
            self._inside -= 1
            is_last = self._is_closed and not self._inside
        if is_last:
            self._release()

    def close(self) -> None:
        """Let nobody in from now on, and release the engine when the last has left; again, it does nothing."""
        if os.getpid() != self._process:
            return
        with self._lock:
            is_last = not self._is_closed and not self._inside
            self._is_closed = True
        if is_last:
            self._release()
