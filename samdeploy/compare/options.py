"""What `samdeploy compare` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from samdeploy.backends.names import check_names
from samdeploy.errors import InputError
from samdeploy.evaluate.accuracy.compare import DEFAULT_CONFIDENCE
from samdeploy.evaluate.options import check_confidence, check_margin

AUTO = "auto"
# In which the two take turns: the ratio of their latencies then has an interval of a few percent.
ROUNDS = 31
# Below, a median has no interval of 95 %.
LEAST_ROUNDS = 6


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """What to compare.

    Attributes:
        data_root: a folder of images, or of the data set that both were made with; None: the test images of both.
        margin: points of top-1 that B may lose, above 0 and below 100; None asks for nothing.
        backend: that runs both; "auto": the first of `PREFERENCE` that opens both.
        precision: of both; None: the backend's own.
        device: "cpu", "cuda" or "auto".
        confidence: of all intervals of rates, from 0.5 and below 1.
        rounds: of the latency; 0: none.

    Raises:
        InputError: unknown names, or numbers out of range.
    """

    data_root: Path | None = None
    margin: float | None = None
    backend: str = AUTO
    precision: str | None = None
    device: str = "auto"
    confidence: float = DEFAULT_CONFIDENCE
    rounds: int = ROUNDS

    def __post_init__(self) -> None:
        check_names(self.backend, self.device, self.precision, also=AUTO)
        if self.margin is not None:
            check_margin(self.margin)
        check_confidence(self.confidence)
        if self.rounds and self.rounds < LEAST_ROUNDS:
            raise InputError(f"rounds {self.rounds} found, 0 or at least {LEAST_ROUNDS} expected")
