"""When a checkpoint is written, and what becomes of it when the disk is full."""

from __future__ import annotations

import errno
import resource
import shutil
import time
from collections import deque
from pathlib import Path

from samdeploy.errors import TrainingError
from samdeploy.train.checkpoints.checkpoint import write_checkpoint
from samdeploy.train.checkpoints.state import TrainState
from samdeploy.train.run.folder import RunFolder

# An epoch's checkpoint is left out where writing the last one took more than this share of the time since: epochs of
# a second must not spend it on the disk.
MAX_SHARE = 0.05
# Files that exist at once: the last, the one before, and the one that is being written.
COPIES = 3


class CheckpointError(TrainingError):
    """A checkpoint cannot be written."""


class Saver:
    """Writes checkpoints of one run; on ranks other than 0 it writes nothing.

    Attributes:
        written: there is a checkpoint to go on from.
        position: epoch and steps of it that the checkpoint holds.
        ended: the last one is written, and the run has been told so.
    """

    def __init__(self, run: RunFolder, minutes: float, *, writes: bool) -> None:
        """
        Args:
            minutes: the longest time between two checkpoints.
            writes: whether this rank is the one that writes.
        """
        self._run, self._minutes, self._writes = run, minutes, writes
        self._last = time.monotonic()
        self._cost = 0.0
        self._best: deque[int] = deque(maxlen=2)  # the best epochs that the last two checkpoints name
        self.written = self.ended = False
        self.position = (1, 0)

    def due(self, *, epoch_end: bool) -> bool:
        """Whether it is time: every `minutes`, and at each epoch's end where that costs little."""
        since = time.monotonic() - self._last
        return self._writes and (since >= 60 * self._minutes or (epoch_end and self._cost <= MAX_SHARE * since))

    def write(self, state: TrainState) -> None:
        """Write a checkpoint.

        Raises:
            CheckpointError: the disk is full, or the like; the checkpoints before are untouched.
        """
        if not self._writes or state.torn:
            return
        start = time.monotonic()
        try:
            write_checkpoint(self._run.checkpoints, state.checkpoint(self._run.facts()))
        except OSError as error:
            kept = "the last good checkpoint is untouched" if self.written else "no checkpoint could be written yet"
            free = shutil.disk_usage(self._run.path).free
            raise CheckpointError(
                f"checkpoint {self._run.checkpoints}: could not be written ({error.strerror or error}; "
                f"{free / 1e6:,.0f} MB are free there); {kept}. {room_cure(error)}"
            ) from None
        self.written = True
        self.position = (state.epoch, state.step)
        self._last = time.monotonic()
        self._cost = self._last - start
        self._best.append(self._run.record.best_epoch)
        if len(self._best) == self._best.maxlen:
            self._run.forget_best(keep={*self._best, self._run.record.best_epoch})


def room_cure(error: OSError) -> str:
    """What helps where a file could not be written."""
    cures = {
        errno.EFBIG: "Files here may not become that large: lift the limit (ulimit -f unlimited)",
        errno.EDQUOT: "The quota is used up: remove files of yours, or name another place",
        errno.ENOSPC: "Make room, or name another place",
    }
    return cures.get(error.errno or 0, "See to the folder, or name another place")


def check_room(folder: Path, state: TrainState) -> None:
    """Refuse to begin what the disk cannot hold: three checkpoints, and the best weights.

    Raises:
        TrainingError: names both figures; also where a file may not become as large as a checkpoint.
    """
    weights = sum(value.nbytes for value in state.model.state_dict().values())
    checkpoint = weights * (4 if state.mean else 3)  # the weights, Adam's two moments, the mean
    needed, free = COPIES * checkpoint + 3 * weights, shutil.disk_usage(folder).free
    largest = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if largest != resource.RLIM_INFINITY and largest < checkpoint:
        raise TrainingError(
            f"{folder}: files may have up to {largest / 1e6:,.1f} MB here, but a checkpoint of this network takes up "
            f"to {checkpoint / 1e6:,.0f} MB; lift the limit: ulimit -f unlimited"
        )
    if free < needed:
        raise TrainingError(
            f"{folder}: {free / 1e6:,.0f} MB are free, but weights and checkpoints of this network take up to "
            f"{needed / 1e6:,.0f} MB; make room, or choose another folder with --runs"
        )
