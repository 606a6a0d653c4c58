"""Progress of a TensorRT build, and its end before it is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

# Called with (steps, what is being done) as the build goes on; `samdeploy.progress.progress_bar` yields one.
Advance = Callable[[int, str], None]

# How long a thread may take from its creation to its first line, on a busy machine.
_START_GRACE_S = 1.0


def build_plan(trt: Any, builder: Any, network: Any, config: Any, progress: Advance | None) -> Any:
    """`build_serialized_network`, told to `progress`, and stoppable: Ctrl-C ends it at TensorRT's next step.

    The build runs in a thread of its own, since Python delivers Ctrl-C to the main thread alone, and not before the
    call that the main thread is in returns.

    Returns:
        TensorRT's plan; None where it could not build one.

    Raises:
        KeyboardInterrupt, or whatever `progress` raised: the build was stopped and there is no plan.
    """
    monitor = _monitor(trt, progress)
    config.progress_monitor = monitor
    plans: list[Any] = []
    done = threading.Event()

    def work() -> None:
        try:
            if not monitor.stop.is_set():
                plans.append(builder.build_serialized_network(network, config))
        except BaseException as error:
            monitor.error = error
        finally:
            done.set()

    thread = threading.Thread(target=work, name="tensorrt-build", daemon=True)
    try:
        thread.start()
        done.wait()
    except BaseException:
        monitor.stop.set()
        # Ctrl-C can strike inside `start`, when the thread is about to run but does not count as alive yet.
        grace = time.monotonic() + _START_GRACE_S
        while not done.wait(0.05) and (thread.is_alive() or time.monotonic() < grace):
            pass
        if done.is_set():
            thread.join()
        raise
    thread.join()
    if monitor.error is not None:
        raise monitor.error
    return plans[0]


def _monitor(trt: Any, progress: Advance | None) -> Any:
    """TensorRT's progress, passed on.  Its phases nest; each step of each phase counts one."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the base comes with the package, which has no types
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.stop = threading.Event()
            self.error: BaseException | None = None

        def tell(self, steps: int, phase: str) -> None:
            # An exception must not pass through TensorRT: it is kept, the build is ended, and it is raised after.
            if progress is None or self.stop.is_set():
                return
            try:
                progress(steps, phase)
            except BaseException as error:
                self.error = error
                self.stop.set()

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.tell(0, phase)

        def step_complete(self, phase: str, step: int) -> bool:
            self.tell(1, phase)
            return not self.stop.is_set()  # False ends the build

        def phase_finish(self, phase: str) -> None:
            pass

    return Monitor()
