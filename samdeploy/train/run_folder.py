"""The run directory while training writes it."""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path
from typing import Literal

from torch import nn

from samdeploy.errors import InputError
from samdeploy.files import write_atomic
from samdeploy.models import save_weights
from samdeploy.run import HISTORY_FILE, RECIPE_FILE, WEIGHTS_FILE, RunRecord, write_run
from samdeploy.train.history import EpochRow, append_history
from samdeploy.train.measure import Measured
from samdeploy.train.recipe import Recipe, dump_recipe


class RunFolder:
    """A run on disk.  It counts as a run from its first finished epoch on, when run.json appears.

    Attributes:
        path: the directory.
        record: what run.json says, or will say.
    """

    def __init__(self, runs_root: Path, recipe: Recipe, record: RunRecord) -> None:
        """Make the directory and put the resolved recipe into it.

        Raises:
            InputError: the directory cannot be made.
        """
        self.record = record
        try:
            self.path = _new_folder(runs_root, f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}")
        except OSError as error:
            raise InputError(f"runs folder {runs_root}: cannot be written to ({error.strerror})") from None
        write_atomic(self.path / RECIPE_FILE, dump_recipe(recipe).encode())

    def epoch(self, row: EpochRow, model: nn.Module) -> bool:
        """Record a finished epoch; says whether it is the best so far, whose weights are then on disk.

        Best is the higher validation top-1, and at equal top-1 the lower validation loss.
        """
        record = self.record
        before = (record.best_val_top1, -record.best_val_loss)
        best = record.best_epoch == 0 or (row.val_top1, -row.val_loss) > before
        if best:
            save_weights(model, self.path / WEIGHTS_FILE)
            self.record = dataclasses.replace(
                record, best_epoch=row.epoch, best_val_top1=row.val_top1, best_val_loss=row.val_loss
            )
        append_history(self.path / HISTORY_FILE, row)
        write_run(self.path, self.record)
        return best

    def complete(self, test: Measured) -> None:
        """Record the one test measurement; the run is complete."""
        self.record = dataclasses.replace(
            self.record, status="complete", test_top1=test.top1, test_correct=test.correct, test_images=test.images
        )
        write_run(self.path, self.record)

    def stop(self, status: Literal["interrupted", "diverged"]) -> str:
        """End a run that is not complete; says what is left of it.

        Without a finished epoch there is nothing to keep, and the directory is removed.
        """
        if self.record.best_epoch == 0:
            shutil.rmtree(self.path)
            return f"No epoch had finished, so {self.path} was removed"
        self.record = dataclasses.replace(self.record, status=status)
        write_run(self.path, self.record)
        return (
            f"The best weights (epoch {self.record.best_epoch}, val top-1 {self.record.best_val_top1:.2f} %) "
            f"are kept in {self.path}"
        )


def _new_folder(runs_root: Path, name: str) -> Path:
    """A directory that nothing was in before: `name`, or `name`-2, -3, ... where that exists."""
    runs_root.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = runs_root / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path
