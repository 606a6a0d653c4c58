"""What `samdeploy eval` is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from samdeploy.backends.names import check_names
from samdeploy.errors import InputError
from samdeploy.evaluate.accuracy.compare import DEFAULT_CONFIDENCE
from samdeploy.evaluate.accuracy.floors import NO_FLOORS, Floors
from samdeploy.evaluate.accuracy.gate import DEFAULT_MARGIN

ALL = "all"
# Seconds for the checks of one engine against itself; small networks need a few.
CONSISTENCY_S = 60.0


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """What to evaluate.

    Attributes:
        backend: a key of `BACKENDS`, or "all".
        precision: None: all that the bundle holds for a backend, see `precisions_held`.
        device: "cpu", "cuda" or "auto", for the engine and the reference alike.
        data_root: where the data set lies; None: where training found it.
        margin: points of top-1 that an engine below FP32 may lose, above 0 and below 100.
        confidence: of the interval that must show it, from 0.5 and below 1.
        consistency_s: at most so many seconds for each engine's checks against itself; 0: none.
        floors: what every engine must reach beside the gate.
        why: where an engine fails, find the tensor of its graph that departs first.

    Raises:
        InputError: unknown names, or numbers out of range.
    """

    backend: str = ALL
    precision: str | None = None
    device: str = "auto"
    data_root: Path | None = None
    margin: float = DEFAULT_MARGIN
    confidence: float = DEFAULT_CONFIDENCE
    consistency_s: float = CONSISTENCY_S
    why: bool = False
    floors: Floors = NO_FLOORS

    def __post_init__(self) -> None:
        check_names(self.backend, self.device, self.precision, also=ALL)
        check_margin(self.margin)
        check_confidence(self.confidence)
        if not 0 <= self.consistency_s < math.inf:
            raise InputError(f"--consistency: {self.consistency_s:g} found, seconds from 0 expected")


def check_margin(margin: float) -> None:
    """Refuse a margin, in points, that cannot be shown or promises nothing.

    Raises:
        InputError: it is not above 0 and below 100.
    """
    if not 0 < margin < 100:
        hint = " (no images can show that nothing at all is lost; 0.1 is strict)" if margin == 0 else ""
        raise InputError(f"--margin: {margin:g} found, points above 0 and below 100 expected{hint}")


def check_confidence(confidence: float) -> None:
    """Refuse a confidence that is no share.

    Raises:
        InputError: it is not from 0.5 and below 1.
    """
    if not 0.5 <= confidence < 1:
        hint = f" (for {confidence:g} %: {confidence / 100:g})" if 50 <= confidence < 100 else ""
        raise InputError(f"confidence {confidence:g} found, at least 0.5 and below 1 expected{hint}")
