"""The next batch is prepared while the GPU computes this one.

torchvision's geometric operations copy a small matrix to the GPU and wait for it: on the stream that trains, for the
whole step that is queued there.  On a stream of its own the wait is for the images alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

# images float32 [n, 3, H, W], normalised, and targets
Batch = tuple[torch.Tensor, torch.Tensor]
# epoch, step and piece, from which all randomness follows
Place = tuple[int, int, int]


class _Held(NamedTuple):
    asked: tuple[Place, int, int]
    batch: Batch
    done: torch.cuda.Event


class Ahead:
    """Images ready to be learnt, for one piece of a batch after the other; on the CPU prepared when asked for."""

    def __init__(self, prepare: Callable[[torch.Tensor, Place], Batch], device: torch.device) -> None:
        """
        Args:
            prepare: from row numbers, int64 [n], to a batch; the same place gives the same batch whenever it is called.
            device: where that works.
        """
        self._prepare, self._device = prepare, device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._begun: torch.cuda.Event | None = None
        self._held: _Held | None = None

    def take(self, rows: torch.Tensor, place: Place) -> Batch:
        """The batch, ready on the current stream: the one that was begun, or else made now."""
        held, self._held = self._held, None
        if self._stream is None:
            return self._prepare(rows, place)
        current = torch.cuda.current_stream(self._device)
        # What is begun next needs what is there now (rows, images), and none of what is queued later.
        self._begun = current.record_event()
        if held is None or held.asked != _asked(rows, place):
            return self._prepare(rows, place)
        current.wait_event(held.done)
        for tensor in held.batch:
            tensor.record_stream(current)  # else its memory could be given away while this stream still reads it
        return held.batch

    def begin(self, rows: torch.Tensor, place: Place) -> None:
        """Prepare a batch beside what is queued on the current stream; does nothing on the CPU."""
        if self._stream is None or self._begun is None:
            return
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._begun)
            batch = self._prepare(rows, place)
            self._held = _Held(_asked(rows, place), batch, self._stream.record_event())


def _asked(rows: torch.Tensor, place: Place) -> tuple[Place, int, int]:
    return place, rows.data_ptr(), len(rows)
