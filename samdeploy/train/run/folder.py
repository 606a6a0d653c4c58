"""The run directory while training writes it."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import math
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from samdeploy.bundle.fields import to_json
from samdeploy.bundle.names import CLASSES_FILE, CONFUSION_FILE, HISTORY_FILE, RECIPE_FILE, WEIGHTS_FILE
from samdeploy.errors import InputError
from samdeploy.files import json_bytes, write_atomic
from samdeploy.metrics import classes_csv, confusion_csv
from samdeploy.models import save_weights
from samdeploy.runs.new_folder import new_run_folder
from samdeploy.runs.record import RunRecord, write_run
from samdeploy.train.checkpoints.checkpoint import FOLDER, clear_temporary
from samdeploy.train.loop.measure import Measured
from samdeploy.train.recipe.dump import dump_recipe, recipe_table
from samdeploy.train.recipe.recipe import Recipe
from samdeploy.train.watch.history import EpochRow, GateRow, write_table

GATES_FILE = "gates.csv"
LOCK_FILE = "lock"
IN_USE = "another process is training it; wait for its end or stop it first"


class RunFolder:
    """A run on disk.  It counts as a run from its first finished epoch on, when run.json appears.

    Attributes:
        path: the directory.
        record: what run.json says, or will say.
    """

    def __init__(self, path: Path, recipe: Recipe, record: RunRecord, *, writes: bool = True) -> None:
        """
        Args:
            path: exists.
            writes: false on ranks other than 0: then nothing here touches the disk.
        """
        self.path, self.record = path, record
        self._recipe, self._writes = recipe, writes
        self._lock = -1
        self._best_score = 0.0  # of the best epoch, by `training.monitor`

    @classmethod
    def create(cls, runs_root: Path, recipe: Recipe, record: RunRecord) -> RunFolder:
        """Make a new directory, put the resolved recipe into it, and lock it.

        Raises:
            InputError: the directory cannot be made.
        """
        path = new_run_folder(runs_root, f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}")
        run = cls(path, recipe, record)
        run.lock()
        write_atomic(run.path / RECIPE_FILE, dump_recipe(recipe).encode())
        return run

    @classmethod
    def known(cls, path: Path, recipe: Recipe, record: RunRecord) -> RunFolder:
        """Lock the directory of a run that goes on.

        Raises:
            InputError: another process trains into it.
        """
        run = cls(path, recipe, record)
        run.lock()
        return run

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / FOLDER

    def lock(self) -> None:
        """Keep others from training into this folder while this process lives.

        Raises:
            InputError: another process does.
        """
        self.checkpoints.mkdir(exist_ok=True)
        self._lock = os.open(self.checkpoints / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.unlock()
            raise InputError(f"run {self.path}: {IN_USE}") from None
        except OSError:  # a network file system without locks
            pass

    def unlock(self) -> None:
        """Let others train into this folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def facts(self) -> dict[str, Any]:
        """What a checkpoint says about the run: recipe, data, and the best epoch so far."""
        record = self.record
        return {
            "recipe": recipe_table(self._recipe),
            "classes": list(record.classes),
            "fingerprints": dict(record.fingerprints),
            "best": [record.best_epoch, record.best_val_top1, record.best_val_loss],
            "monitored": [self._recipe.training.monitor, self._best_score],
            "provenance": dict(record.provenance),
            "legs": to_json(record.legs),
        }

    def restore(self, facts: Mapping[str, Any], rows: Sequence[EpochRow], gate_rows: Sequence[GateRow]) -> None:
        """Bring all files to where a checkpoint was; what was written after it comes again.

        Raises:
            InputError: the best weights that it names are gone.
        """
        epoch, top1, loss = facts["best"]
        monitor, self._best_score = facts["monitored"]
        if epoch and monitor != self._recipe.training.monitor:
            self._best_score = rows[epoch - 1].score(self._recipe.training.monitor)
        self.record = dataclasses.replace(self.record, best_epoch=epoch, best_val_top1=top1, best_val_loss=loss)
        if not self._writes:
            return
        clear_temporary(self.path)
        clear_temporary(self.checkpoints)
        write_atomic(self.path / RECIPE_FILE, dump_recipe(self._recipe).encode())
        if epoch:
            self._publish(epoch)
            write_run(self.path, self.record)
        self._write_tables(rows, gate_rows)

    def epoch(self, rows: Sequence[EpochRow], model: nn.Module, gate_rows: Sequence[GateRow] = ()) -> bool:
        """Record a finished epoch; says whether it is the best so far, whose weights are then on disk.

        Best is the higher score by `training.monitor`, and at equal scores the lower validation loss.

        Args:
            rows, gate_rows: of all epochs.
        """
        record, row = self.record, rows[-1]
        score = row.score(self._recipe.training.monitor)
        before = (self._best_score, -record.best_val_loss)
        best = record.best_epoch == 0 or (score, -row.val_loss) > before
        if best:
            if self._writes:
                save_weights(model, self._best_file(row.epoch))
                self._publish(row.epoch)
            # Not before: on a full disk the best weights are still those of the epoch before.
            self._best_score = score
            self.record = dataclasses.replace(
                self.record, best_epoch=row.epoch, best_val_top1=row.val_top1, best_val_loss=row.val_loss
            )
        if self._writes:
            self._write_tables(rows, gate_rows)
            write_run(self.path, self.record)
        return best

    def best_is_now(self, val: Measured) -> None:
        """Take another measurement of the best weights, on the validation images of now."""
        loss = val.loss if math.isfinite(val.loss) else sys.float_info.max  # any other is better
        self._best_score = val.score(self._recipe.training.monitor) if math.isfinite(val.loss) else -sys.float_info.max
        self.record = dataclasses.replace(self.record, best_val_top1=val.top1, best_val_loss=loss)
        if self._writes:
            write_run(self.path, self.record)

    def forget_best(self, keep: set[int]) -> None:
        """Remove the best weights of all epochs but those, which checkpoints name."""
        kept = {self._best_file(epoch) for epoch in keep}
        for path in self.checkpoints.glob("best-*.safetensors"):
            if path not in kept:
                path.unlink(missing_ok=True)

    def warn(self, cautions: Sequence[str]) -> None:
        """Say each of them once, and keep it for run.json."""
        new = [text for text in cautions if text not in self.record.warnings]
        self.record = dataclasses.replace(self.record, warnings=(*self.record.warnings, *new))
        if self._writes:
            for text in new:
                print(f"warning: {text}", file=sys.stderr)

    def complete(self, test: Measured) -> None:
        """Record the one test measurement, in all and for each class; the run is complete, and its checkpoints go."""
        self.record = dataclasses.replace(
            self.record, status="complete", test_top1=test.top1, test_correct=test.correct, test_images=test.images
        )
        if self._writes:
            if test.confusion is not None:
                classes = self.record.classes
                write_atomic(self.path / CONFUSION_FILE, confusion_csv(test.confusion, classes).encode())
                write_atomic(self.path / CLASSES_FILE, classes_csv(test.confusion, classes).encode())
            write_run(self.path, self.record)
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        self.unlock()

    def stop(self, status: Literal["interrupted", "diverged"], go_on: str = "") -> str:
        """End a run that is not complete; says what is left of it.

        Without a finished epoch or a checkpoint there is nothing to keep, and the directory is removed.

        Args:
            go_on: how to go on from its checkpoint; "" where there is none.
        """
        if not self._writes:
            return ""
        self.unlock()
        if self.record.best_epoch == 0 and not go_on:
            shutil.rmtree(self.path)
            return f"No epoch had finished, so {self.path} was removed"
        if self.record.best_epoch == 0:
            return f"No epoch had finished; {go_on}"
        self.record = dataclasses.replace(self.record, status=status)
        with contextlib.suppress(OSError):  # on a full disk the older run.json stays, and the checkpoint counts
            write_run(self.path, self.record)
        kept = (
            f"The best weights (epoch {self.record.best_epoch}, val top-1 {self.record.best_val_top1:.2f} %) "
            f"are kept in {self.path}"
        )
        return f"{kept}; {go_on}" if go_on else kept

    def write(self, name: str, value: object) -> None:
        """A JSON file of the run."""
        if self._writes:
            write_atomic(self.path / name, json_bytes(value))

    def _write_tables(self, rows: Sequence[EpochRow], gate_rows: Sequence[GateRow]) -> None:
        write_table(self.path / HISTORY_FILE, rows)
        write_table(self.path / GATES_FILE, gate_rows)

    def _best_file(self, epoch: int) -> Path:
        return best_file(self.checkpoints, epoch)

    def _publish(self, epoch: int) -> None:
        """Let weights.safetensors be those of `epoch`.

        Raises:
            InputError: their file is gone.
        """
        source, target = self._best_file(epoch), self.path / WEIGHTS_FILE
        temporary = target.with_name(f".{WEIGHTS_FILE}.link")
        temporary.unlink(missing_ok=True)
        if not source.is_file():
            raise InputError(
                f"run {self.path}: {source.name} is gone, the best weights that its checkpoint names; put it back "
                "into the folder of checkpoints, or train anew"
            )
        try:
            os.link(source, temporary)  # not a second copy: the file is only ever replaced, never written into
        except OSError:  # a file system without hard links
            shutil.copyfile(source, temporary)
        temporary.replace(target)
        temporary.unlink(missing_ok=True)  # rename does nothing where both are links to one file already
        with target.open("rb") as weights:
            digest = hashlib.file_digest(weights, "sha256").hexdigest()
        self.record = dataclasses.replace(self.record, weights_sha256=digest)


def best_file(checkpoints: Path, epoch: int) -> Path:
    """Where the weights of an epoch that was the best so far are kept."""
    return checkpoints / f"best-{epoch}.safetensors"


def is_locked(path: Path) -> bool:
    """Whether another process trains into the run at `path`."""
    try:
        handle = os.open(path / FOLDER / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False
