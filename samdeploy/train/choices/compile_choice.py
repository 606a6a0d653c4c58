"""Whether torch.compile pays, found out by the training's own first steps.

On a GPU, "auto" times steps as the network is written; where what is left would take long enough to earn the compiler's
minute back many times over, it compiles, times as many steps again, and keeps what was faster.  All of them are real
steps.  Where the compiler fails, which it does on some networks and sizes, "auto" goes on without.  On the CPU, "auto"
stays with the network as it is written: compiled kernels round differently, and a clock would decide which bytes a
recipe gives.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

from samdeploy.errors import TrainingError, first_line
from samdeploy.models.memory import is_out_of_memory
from samdeploy.train.checkpoints.state import TrainState
from samdeploy.train.distributed import Ranks, is_lost_connection

WARM_UP, TIMED = 10, 30  # steps
# Seconds that compiling a ResNet takes, and how much longer the rest of a training must be to try it.
COST, WORTH = 60.0, 10.0
MIN_GAIN = 1.03  # below that, the difference may be chance


class CompilerFailed(TrainingError):
    """torch.compile does not work on this network, size and device."""


class CompileChoice:
    """Called before every step; ends with `state.compiled` set."""

    def __init__(
        self,
        wanted: str,
        device: torch.device,
        ranks: Ranks,
        total_steps: int,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """
        Args:
            wanted: "auto", "on" or "off".
            total_steps: at most, over all epochs.
            clock: seconds, once the device has done all that was queued.
        """
        self._wanted, self._device, self._ranks, self._total = wanted, device, ranks, total_steps
        self._clock = clock or self._waited
        self._count = 0
        self._start = 0.0
        self._plain = 0.0  # seconds per step as written

    def begin(self, state: TrainState) -> None:
        """Settle what needs no measuring; a training that goes on keeps its choice."""
        if self._wanted != "auto":
            state.compiled = self._wanted == "on"
        elif self._device.type != "cuda":
            state.compiled = False
        if state.compiled:
            state.stepper.compile(True)

    def before_step(self, state: TrainState) -> None:
        """Count a step; at the turning points, look at the clock."""
        if state.compiled is not None:
            return
        if self._count in (WARM_UP, 2 * WARM_UP + TIMED):
            self._start = self._clock()
        elif self._count == WARM_UP + TIMED:
            self._plain = self._per_step()
            left = self._plain * (self._total - self._count)
            if left < COST * WORTH:
                self._settle(state, False, f"the rest takes {left:,.0f} s")
                return
            state.stepper.compile(True)
        elif self._count == 2 * (WARM_UP + TIMED):
            compiled = self._per_step()
            gain = self._plain / compiled
            self._settle(
                state, gain > MIN_GAIN, f"{1e3 * self._plain:.1f} ms a step as written, {1e3 * compiled:.1f} compiled"
            )
            return
        self._count += 1

    def after_failure(self, state: TrainState, error: Exception) -> None:
        """Called where the passes of a step failed: returns where the same step is to be tried again, uncompiled.

        Raises:
            CompilerFailed: it was not on trial here, or other ranks are in the middle of the step.
            Exception: `error`, which was none of the compiler's.
        """
        if not state.stepper.is_compiled or is_lost_connection(error):
            raise error
        if state.compiled is None and self._ranks.world == 1:
            self._settle(state, False, f"it fails here: {first_line(error)}")
        elif is_out_of_memory(error):
            raise error  # the batch may be too large with and without
        else:
            raise CompilerFailed(
                f"torch.compile fails here ({first_line(error)}); train without it: --set training.compile=off"
            ) from error

    def _settle(self, state: TrainState, compiled: bool, why: str) -> None:
        state.compiled = compiled
        state.stepper.compile(compiled)
        print(f"torch.compile: {'on' if compiled else 'off'} ({why})", file=sys.stderr)

    def _per_step(self) -> float:
        """Seconds, of rank 0: all ranks must choose alike."""
        return self._ranks.tell((self._clock() - self._start) / TIMED)

    def _waited(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
