"""What a labelling is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """
    Attributes:
        input: see `open_input`.
        out: folder of the results.
        rows: of the input in one part.
        batch: images per call of the engine.
        threads: that read, decode and resize; None: one per processor.
        shard: (number from 1, how many): this worker takes every so manieth part.
        limit: rows of the input, from the first; None: all.
        where: which rows are written: "" all, "rejected", "error" or "probability < 0.6".
        logits, features: "", "float16" or "float32".
        column: see `open_input`.
        timeout: seconds in which an address must answer.
        force: begin anew what was begun with other settings.
    """

    input: str
    out: Path
    rows: int = 10_000
    batch: int = 16
    threads: int | None = None
    shard: tuple[int, int] = (1, 1)
    limit: int | None = None
    where: str = ""
    logits: str = ""
    features: str = ""
    column: str = ""
    timeout: float = 30.0
    force: bool = False
