"""One engine's row of `eval.json` in the words of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from samdeploy.terminal import wording
from samdeploy.terminal.wording import Outcome

Row = Mapping[str, Any]


def engine_name(row: Row) -> str:
    """ "openvino int8"; with its device where that is not the CPU."""
    return wording.engine_name(row["backend"], row["precision"], row["device"])


def answered(row: Row) -> bool:
    """Whether the engine answered every test image."""
    return row.get("top1") is not None


def outcome(row: Row) -> Outcome:
    """What became of the engine."""
    return wording.engine_outcome(ran=row["ran"], verdict=row["verdict"], passed=row["passed"])


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
