"""SIGTERM, SIGHUP and Ctrl-C while training: save at the exact step, say how to go on, and be gone within ten seconds.

Usually the loop sees the wish after its step, saves and ends in good order.  But a step of a large network on a CPU
takes longer than a batch system waits, and one that waits for a dead neighbour never ends; while PyTorch computes,
Python's signal handlers do not run.  So a thread is told of the signal too (`signal.set_wakeup_fd`), and saves by
itself where the loop has not answered in time: during forward and backward the weights stand still.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType

# Seconds that the loop has to end its step.
GRACE = 2.0
# Seconds that the thread waits for an update or a write that is under way.  Long: a write that is cut off helps nobody,
# and a batch system that loses patience in the middle does no harm, since files take their place when they are whole.
LOCK_WAIT = 120.0

AT_ONCE = f"Ctrl-C again after {GRACE:g} s ends at once, without saving"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Whether somebody wants training to end.

    Attributes:
        requested: the signal's number, or 0.
    """

    def __init__(self, emergency: Callable[[int], str], *, speaks: bool = True) -> None:
        """
        Args:
            emergency: saves while the loop is inside `interruptible`, and gives the last words; gets the signal.
            speaks: whether Ctrl-C is acknowledged; one of several ranks does.
        """
        self.requested = 0
        self._emergency, self._speaks = emergency, speaks
        self._standing_still = threading.Lock()  # held by the loop wherever the state is on the move
        self._ended = threading.Event()
        self._handlers: dict[int, object] = {}
        self._handled = 0
        self._asked = 0.0
        self._thread: threading.Thread | None = None
        self._pipe = (-1, -1)
        self._old_fd = -1

    def __enter__(self) -> Stop:
        self._standing_still.acquire()
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[1], False)
            for number in SIGNALS:
                if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                    continue  # nohup: the terminal may close
                self._handlers[number] = signal.signal(number, self._handle)
            self._old_fd = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            self._thread = threading.Thread(target=self._watch, daemon=True, name="samdeploy-stop")
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._handlers:
            signal.set_wakeup_fd(self._old_fd)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)  # type: ignore[arg-type]
            os.close(self._pipe[1])  # the thread reads the end and goes
        with contextlib.suppress(RuntimeError):  # a second Ctrl-C came while the lock was waited for
            self._standing_still.release()
        if self._thread is not None:  # it may be saving; an interpreter that ends around it would abort
            self._thread.join()

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Around work during which weights, moments and position stand still, so that they can be saved."""
        self._standing_still.release()
        try:
            yield
        finally:
            self._standing_still.acquire()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # Counted here and not by `requested`, which the thread may have set for this very signal already.
        self._handled += 1
        self.requested = self.requested or number
        if self._handled == 1:
            self._asked = time.monotonic()
            if number == signal.SIGINT and self._speaks:  # print could be interrupted in the middle of another print
                with contextlib.suppress(OSError):  # the terminal may have gone, and that must not end the step
                    os.write(2, f"\nstopping after this step, to save ({AT_ONCE})\n".encode())
        # Fingers press twice: within the time that saving usually takes, that is one wish and not two.
        elif number == signal.SIGINT and time.monotonic() - self._asked > GRACE:
            raise KeyboardInterrupt

    def _watch(self) -> None:
        try:
            with os.fdopen(self._pipe[0], "rb", buffering=0) as pipe:
                while number := next(iter(pipe.read(1) or b""), 0):
                    if number in SIGNALS:
                        self._answer(number)
        except OSError:
            return

    def _answer(self, number: int) -> None:
        self.requested = self.requested or number
        if self._ended.wait(GRACE):
            return
        held = self._standing_still.acquire(timeout=LOCK_WAIT)
        if self._ended.is_set():
            if held:
                self._standing_still.release()
            return
        words = self._emergency(number) if held else "a write took too long; the checkpoint before it counts"
        with contextlib.suppress(OSError, ValueError):
            print(words, file=sys.stderr, flush=True)
        os._exit(128 + number)
