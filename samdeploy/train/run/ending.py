"""How a training ends that does not come to its test: what is saved, what is lost, and how to go on."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable
from typing import ParamSpec

from samdeploy.errors import SAID, Diverged, TrainingError, first_line
from samdeploy.models.memory import is_out_of_memory, memory_reason
from samdeploy.train.checkpoints.saver import CheckpointError, Saver, room_cure
from samdeploy.train.checkpoints.state import TrainState
from samdeploy.train.choices.compile_choice import CompilerFailed
from samdeploy.train.choices.memory import fitting_batch, out_of_memory_text
from samdeploy.train.device import Compute
from samdeploy.train.distributed import is_lost_connection
from samdeploy.train.loop.measure import Measured
from samdeploy.train.recipe.recipe import TrainingSection
from samdeploy.train.run.folder import RunFolder

_START = (1, 0)  # epoch and step
P = ParamSpec("P")


class Ending:
    """The end of one run's training, where something stops it.

    Attributes:
        state: what is trained; None until it stands on the device.
    """

    def __init__(
        self, run: RunFolder, training: TrainingSection, saver: Saver, compute: Compute, resumable: bool = True
    ) -> None:
        self.state: TrainState | None = None
        self._run, self._training, self._saver = run, training, saver
        self._device, self._ranks, self._resumable = compute.device, compute.ranks, resumable

    def guard(self, train: Callable[P, Measured], *args: P.args, **kwargs: P.kwargs) -> Measured:
        """Call `train`; whatever it raises, the run is ended, and the error says how to go on.

        Raises:
            TrainingError: the loss is not finite, the compiler failed, the memory is too small, the disk is full, or
                another process of the training is gone.
            BaseException: all others as they are; the last words stand on stderr.
        """
        try:
            return train(*args, **kwargs)
        except CheckpointError as error:
            raise CheckpointError(f"{error}. {self._interrupted()}") from None
        except BrokenPipeError:  # whoever read the progress has gone, as `| head` does
            if self.state is not None and not self.state.torn:
                with contextlib.suppress(CheckpointError):
                    self._saver.write(self.state)
            self._interrupted()
            raise
        except OSError as error:
            unwritten = f"{error.filename or self._run.path}: could not be written ({error.strerror or error})"
            kept = "; the checkpoints before are untouched" if self._saver.written else ""
            raise CheckpointError(f"{unwritten}{kept}. {room_cure(error)}. {self._interrupted()}") from None
        except CompilerFailed as error:
            raise TrainingError(f"{error}. {self._interrupted()}") from None
        except Diverged as error:
            raise Diverged(f"{error}. {self._diverged()}") from None
        except RuntimeError as error:
            if is_out_of_memory(error):
                memory = memory_reason(error)
            elif self._ranks.world > 1 and is_lost_connection(error):
                if not self._ranks.main:
                    raise SystemExit(1) from None
                if self.state is not None:
                    self._saver.write(self.state)
                lost = f"another process of this training failed or was stopped ({first_line(error)})"
                raise TrainingError(f"{lost}. {self._interrupted()}") from None
            else:
                _say(self._interrupted())
                raise
        except (KeyboardInterrupt, SystemExit):
            if not self._saver.ended:
                _say(f"{self._lost()}{self._interrupted()}")
            raise
        except BaseException:
            _say(self._interrupted())
            raise
        # Outside of the handler: the error's traceback held on to the tensors that filled the memory.
        raise TrainingError(f"{self._memory_text(memory)}. {self._interrupted()}")

    def stopped(self, number: int) -> BaseException:
        """Save after signal `number`, say so, and give what ends the process."""
        _say(self.save(number))
        return KeyboardInterrupt(SAID) if number == signal.SIGINT else SystemExit(128 + number)

    def save(self, number: int) -> str:
        """Save after signal `number`; the last words."""
        position, problem = self._position, ""
        if self._resumable and self.state is not None and position > _START:
            try:
                self._saver.write(self.state)
            except CheckpointError as error:
                problem = f" {error}."
        self._saver.ended = True
        name = signal.Signals(number).name
        return f"stopped by {name} at {_where(*position)}.{problem} {self._interrupted()}".rstrip()

    @property
    def _position(self) -> tuple[int, int]:
        return _START if self.state is None else (self.state.epoch, self.state.step)

    def _interrupted(self) -> str:
        if not self._resumable:
            return ""
        go_on = f"go on with: {self._ranks.command()} train --resume {self._run.path}"
        return self._run.stop("interrupted", go_on if self._saver.written else "")

    def _diverged(self) -> str:
        slower = f"--set training.learning_rate={self._training.learning_rate / 10:g} --force"
        go_on = f"go on from its last checkpoint with: samdeploy train --resume {self._run.path} {slower}"
        return self._run.stop("diverged", go_on if self._saver.written else "")

    def _lost(self) -> str:
        """What a training that ends without saving gives away; "" for nothing."""
        saver, position = self._saver, self._position
        if position <= saver.position:
            return ""
        kept = f"the checkpoint is of {_where(*saver.position)}" if saver.written else "there is no checkpoint"
        return f"ended at once at {_where(*position)}; {kept}, what was learnt since is lost. "

    def _memory_text(self, reason: str) -> str:
        state, batch_size, on_gpu = self.state, self._training.batch_size, self._device.type == "cuda"
        where = "the GPU's memory" if on_gpu else "the memory"
        if state is None:
            cure = "end other programs on this GPU, which nvidia-smi lists" if on_gpu else "end others"
            return f"{where} is full before the first batch ({reason}); {cure}"
        if not state.batches or self._ranks.world > 1:  # ranks cannot try without one another
            smaller = f"--set training.batch_size={batch_size // 2}"
            return f"{where} is too small ({reason}); take smaller batches: {smaller}"
        return out_of_memory_text(batch_size, state.accumulate, fitting_batch(state, batch_size), where, reason)


def _say(text: str) -> None:
    """Last words; the terminal may have gone, and that is no reason for another end."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def _where(epoch: int, step: int) -> str:
    if step:
        return f"epoch {epoch}, step {step}"
    return f"the end of epoch {epoch - 1}" if epoch > 1 else "the start"
