"""Out of memory: find the batch that would fit, by trying."""

from __future__ import annotations

import gc

import torch

from samdeploy.models.memory import is_out_of_memory
from samdeploy.train.checkpoints.state import TrainState


def fitting_batch(state: TrainState, failed: int) -> int:
    """The largest of failed / 2, failed / 4, ... whose forward and backward pass fit; 0 where none does.

    Weights are left alone; gradients and batch norm's running means are not, since training ends here.
    """
    rows = max(state.batches, key=len)
    size = failed // 2
    while size >= 2:
        state.stepper.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if _fits(state, rows[:size]):
            return size
        size //= 2
    return 0


def out_of_memory_text(batch_size: int, accumulate: int, fitting: int, where: str, reason: str) -> str:
    """What to tell the user, with both cures: smaller batches, or the same batch in pieces."""
    text = f"{where} is too small for batches of {batch_size} ({reason})"
    if not fitting:
        return f"{text}, and for batches of 2 as well; make the images smaller (image.height, image.width)"
    pieces = accumulate * -(-batch_size // fitting)
    return (
        f"{text}; batches of {fitting} fit: --set training.batch_size={fitting}, or --set training.accumulate={pieces} "
        "for the same steps in smaller pieces"
    )


def _fits(state: TrainState, rows: torch.Tensor) -> bool:
    try:
        state.stepper.passes(rows, state.epoch, 0)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True
