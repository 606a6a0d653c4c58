"""What is around one training and stays the same while it lasts."""

from __future__ import annotations

from dataclasses import dataclass

from samdeploy.train.checkpoints.resume import Resumed
from samdeploy.train.checkpoints.saver import Saver
from samdeploy.train.checkpoints.stop import Stop
from samdeploy.train.choices.compile_choice import CompileChoice
from samdeploy.train.device import Compute
from samdeploy.train.distributed import Ranks
from samdeploy.train.recipe.recipe import Recipe
from samdeploy.train.run.ending import Ending
from samdeploy.train.run.folder import RunFolder
from samdeploy.train.watch.curves import LiveCurves
from samdeploy.train.watch.loggers import loggers_of


@dataclass(frozen=True, slots=True)
class Surroundings:
    """
    Attributes:
        recipe: what is trained, and how.
        compute: where, and in which precision.
        run: the folder that is written.
        saver: writes its checkpoints.
        ending: ends the run where something stops the training.
        stop: whether somebody wants the end.
        choice: whether torch.compile is used.
        curves: plots and logs of its figures.
    """

    recipe: Recipe
    compute: Compute
    run: RunFolder
    saver: Saver
    ending: Ending
    stop: Stop
    choice: CompileChoice
    curves: LiveCurves

    @property
    def ranks(self) -> Ranks:
        """Who else trains."""
        return self.compute.ranks


def surroundings(
    recipe: Recipe, compute: Compute, run: RunFolder, images: int, resumed: Resumed | None, resumable: bool
) -> Surroundings:
    """Those of a training that begins, or of one that goes on.

    Args:
        images: of one epoch.
        resumable: as for `train`.
    """
    training, ranks = recipe.training, compute.ranks
    saver = Saver(run, training.checkpoint_minutes, writes=ranks.main)
    if resumed is not None:
        facts = resumed.checkpoint.facts
        saver.written, saver.position = True, (facts["epoch"], facts["step"])
    ending = Ending(run, training, saver, compute, resumable)
    stop = Stop(ending.save, speaks=ranks.main and resumable)
    steps = training.epochs * -(-images // training.batch_size)
    choice = CompileChoice(training.compile, compute.device, ranks, steps)
    curves = LiveCurves(run.path, loggers_of(training))
    return Surroundings(recipe, compute, run, saver, ending, stop, choice, curves)
