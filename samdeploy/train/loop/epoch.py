"""One pass over the training images."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from samdeploy.errors import Diverged
from samdeploy.models.registry import calmer_training
from samdeploy.progress import progress_bar
from samdeploy.train.checkpoints.state import TrainState
from samdeploy.train.loop.schedule import learning_rate
from samdeploy.train.recipe.recipe import Recipe
from samdeploy.train.surroundings import Surroundings
from samdeploy.train.watch.first_layer import first_bad_layer

# Steps between two looks at the losses.  A look waits for the GPU and empties its queue; on the CPU it costs nothing.
CHECK_EVERY = {"cuda": 50, "cpu": 1}
# Seconds between two lines of progress where there is no terminal to draw a bar on.
LINE_EVERY = 60.0


class Stopped(BaseException):
    """Training ends here because of a signal; the state is between two steps.  No error, so not to be caught as one."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(frozen=True, slots=True)
class EpochFigures:
    """What one epoch of training measured along the way.

    Attributes:
        loss: mean over the images, each with the weights of its step.
        top1: in percent, likewise.
        rate: the learning rate of the last step.
        images_per_s: training images per second.
    """

    loss: float
    top1: float
    rate: float
    images_per_s: float


def train_epoch(state: TrainState, around: Surroundings) -> EpochFigures:
    """Learn every image once, from where `state` stands in its epoch.

    Raises:
        Diverged: a loss or gradient is not finite; names the first step and layer where that was so.
        Stopped: somebody wants the end.
    """
    training, ranks, stop = around.recipe.training, around.ranks, around.stop
    steps, epoch = len(state.batches), state.epoch
    every = CHECK_EVERY[state.losses.device.type]
    sizes = [len(rows) for rows in state.batches]
    seen, begun, status = sum(sizes[: state.step]), sum(sizes[: state.step]), ""
    start = printed = time.perf_counter()
    before = state.seconds
    rate = learning_rate(training, (epoch - 1) * steps + max(state.step - 1, 0), steps)
    with progress_bar(f"epoch {epoch}/{training.epochs}", sum(sizes)) as advance:
        advance(seen, status)
        for step in range(state.step, steps):
            rate = learning_rate(training, (epoch - 1) * steps + step, steps)
            around.choice.before_step(state)
            _one_step(state, around, step, rate)
            seen += sizes[step]
            state.seconds = before + time.perf_counter() - start
            if (step + 1) % every == 0 or step + 1 == steps:
                loss, correct, stopping = _look(state, around)
                speed = (seen - begun) / (state.seconds - before)
                status = f"loss {loss_text(loss)}  top-1 {100 * correct / seen:.1f} %  {speed:,.0f} images/s"
                if time.perf_counter() - printed > LINE_EVERY and not sys.stderr.isatty():
                    printed = time.perf_counter()
                    left = _clock((sum(sizes) - seen) / speed)
                    print(
                        f"epoch {epoch}/{training.epochs}  {100 * step // steps} %  {status}  {left} left of it",
                        file=sys.stderr,
                    )
                if stopping:
                    raise Stopped(stopping)
            elif stop.requested and ranks.world == 1:
                _look(state, around)
                raise Stopped(stop.requested)
            advance(sizes[step], status)
            if around.saver.due(epoch_end=False):
                check_finite(state.losses[: state.step].tolist(), state, around)
                around.saver.write(state)
    sums = torch.stack([(state.losses * torch.tensor(sizes, device=state.losses.device)).sum().double(), state.correct])
    with stop.interruptible():
        loss, correct = ranks.sum(sums).tolist()
    return EpochFigures(loss / seen, 100 * correct / seen, rate, seen / state.seconds)


def _one_step(state: TrainState, around: Surroundings, step: int, rate: float) -> None:
    with state.stepper.kept_buffers():
        with around.stop.interruptible():
            loss, hits = _passes(state, around, step)
        state.torn = True
        state.stepper.update(loss, rate, step)
        state.advance(loss, hits)
        state.torn = False
    if step + 1 < len(state.batches):
        state.stepper.begin(state.batches[step + 1], state.epoch, step + 1)


def _passes(state: TrainState, around: Surroundings, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        return state.stepper.passes(state.batches[step], state.epoch, step)
    except Exception as error:
        around.choice.after_failure(state, error)
    # Batch norm's running means may have taken in the batch already.
    state.stepper.restore_buffers()
    return state.stepper.passes(state.batches[step], state.epoch, step)


def _look(state: TrainState, around: Surroundings) -> tuple[float, int, int]:
    """The last step's loss, the right answers so far, and the signal to stop for, over all ranks.

    Raises:
        Diverged: something was not finite.
    """
    device = state.losses.device
    wish = torch.tensor(around.stop.requested > 0, device=device)
    with around.stop.interruptible():  # a rank that is gone may let this one wait for ever
        figures = around.ranks.sum(torch.stack([state.losses[: state.step].sum(), state.correct, wish]).double())
    sound = torch.stack([state.stepper.bad_step.double(), state.losses[state.step - 1].double(), *figures]).tolist()
    bad_step, _, total, correct, stopping = sound
    if bad_step != float(state.stepper.SOUND) or not math.isfinite(total):
        check_finite(state.losses[: state.step].tolist(), state, around)
    # Where only other ranks were told, it was by a batch system.
    number = (around.stop.requested or signal.SIGTERM) if stopping else 0
    return sound[1] * around.ranks.world, int(correct), number


def check_finite(losses: Iterable[float], state: TrainState, around: Surroundings) -> None:
    """Refuse to go on where a loss of this epoch, or a gradient, was not finite.

    Args:
        losses: of the steps 1, 2, ... of the epoch.

    Raises:
        Diverged: names step and layer.
    """
    bad_step = int(state.stepper.bad_step)
    for step, loss in enumerate(losses):
        if math.isfinite(loss) and step != bad_step:
            continue
        what = f"the training loss became {loss}" if not math.isfinite(loss) else "the gradient became infinite or nan"
        layer = "" if around.ranks.world > 1 else first_bad_layer(state, step)
        where = f"at epoch {state.epoch}, step {step + 1} of {len(state.batches)}"
        raise diverged(f"{what} {where}", around.recipe, layer)


def diverged(what: str, recipe: Recipe, layer: str = "") -> Diverged:
    """The error for a loss that is not finite, with the cures that this recipe has not taken yet.

    Args:
        layer: from `first_bad_layer`.
    """
    rate = recipe.training.learning_rate
    cures = [f"lower the learning rate: --set training.learning_rate={rate / 10:g}"]
    if not recipe.training.clip_norm:
        cures.append("clip the gradient: --set training.clip_norm=1")
    if calmer := calmer_training(recipe.model.arch, recipe.model.options):
        cures.append(calmer)
    if recipe.training.precision == "fp16":
        cures.append("compute in a wider range: --set training.precision=bf16")
    return Diverged(f"training diverged: {what} (learning rate {rate:g}){layer}; {', or '.join(cures)}")


def loss_text(loss: float) -> str:
    """At most eight characters, whatever the loss.

    >>> loss_text(0.51234), loss_text(4.6e16)
    ('0.5123', '4.60e+16')
    """
    return f"{loss:.4f}" if abs(loss) < 1000 else f"{loss:.2e}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
