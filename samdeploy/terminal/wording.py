"""How numbers and verdicts are written: one form for tables, the HTML report, JUnit and messages."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

NONE = "-"
NOT_FINITE = "not finite"

Kind = Literal["good", "bad", "open", "none"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A word for people, and the sign and the kind (colour) that the HTML report adds; colour never stands alone."""

    word: str
    sign: str
    kind: Kind


# The verdict in `eval.json`, of an engine or of the whole evaluation -> what people read.
VERDICTS = {
    "holds": Outcome("passed", "✓", "good"),
    "fails": Outcome("failed", "✗", "bad"),
    "cannot tell": Outcome("inconclusive", "?", "open"),
}
NOT_RUN = Outcome("not run", NONE, "none")
STOPPED = Outcome("stopped", "✗", "bad")


def engine_outcome(*, ran: bool, verdict: str | None, passed: bool) -> Outcome:
    """The outcome of one engine's row of `eval.json`; `verdict` is None for an engine that stopped."""
    if not ran:
        return NOT_RUN
    if verdict is None:
        return STOPPED
    # An engine may keep the gate's promise and break another one.
    return VERDICTS["fails" if verdict == "holds" and not passed else verdict]


def engine_name(backend: str, precision: str, device: str = "") -> str:
    """ "openvino int8"; with its device where that is not the CPU."""
    return f"{backend} {precision}" + (f" ({device})" if device not in ("", "cpu") else "")


def count(value: int | None) -> str:
    """1,797."""
    return NONE if value is None else f"{value:,}"


def percent(value: float | None) -> str:
    """97.50, without the sign: it stands in the heading."""
    return NONE if value is None else f"{value:.2f}"


def points(value: float | None) -> str:
    """A change of a percentage: +0.28, -1.20, 0.00."""
    if value is None:
        return NONE
    text = f"{value:+z.2f}"
    return "0.00" if text == "+0.00" else text


def milliseconds(value: float | None) -> str:
    """Three figures: 0.371, 5.39, 26.9, 1,303."""
    return NONE if value is None else f"{value:,.{3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0}f}"


def rate(value: float | None) -> str:
    """Images per second: 85.3, 1,303."""
    return NONE if value is None else f"{value:,.{0 if value >= 100 else 1}f}"


def ratio(value: float) -> str:
    """How many times as fast: 1.13, 23.5, 304; alone it is followed by an x."""
    return f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f}"


def difference(value: float | None) -> str:
    """A share of a range: 9.4e-07, or 0.  JSON has null in the place of what is not finite."""
    if value is None or not math.isfinite(value):
        return NOT_FINITE
    return f"{value:.1e}" if value else "0"


def magnitude(value: float) -> str:
    """Four figures: 4.536, 6.550e+04."""
    return f"{value:#.4g}" if math.isfinite(value) else NOT_FINITE


def bits(value: float | None) -> str:
    """Head-room: 13.8."""
    return NONE if value is None else f"{value:.1f}"


def correlation(value: float | None) -> str:
    """0.9998."""
    return NONE if value is None else f"{value:.4f}"


def p_value(value: float) -> str:
    """0.017, or <0.001."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def span(low: float | None, high: float | None, write: Callable[[float], str]) -> str:
    """1.07 to 1.20, each as `write` does; a hyphen could be taken for a minus sign."""
    return NONE if low is None or high is None else f"{write(low)} to {write(high)}"


def megabytes(size: int) -> str:
    """Of a file: 47.5."""
    return f"{size / 1e6:,.1f}"


def floored(share: float) -> str:
    """A percentage that is never rounded up to all: 99.98 is 99.9."""
    return f"{math.floor(10 * share) / 10:.1f}"
