"""From values to places on a plot, and the round values beneath it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tick:
    """A place, in the plot's units, and what is written there."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Scale:
    """`low` lies at `start`, `high` at `end`; evenly, or by equal factors."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value lies; one outside lies at the nearer end."""
        value, low, high = min(max(value, self.low), self.high), self.low, self.high
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        share = (value - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self, most: int = 6) -> tuple[Tick, ...]:
        """At round values."""
        if self.log:
            return tuple(Tick(self.at(value), tick_text(value)) for value in _log_values(self.low, self.high, most))
        values = _even_values(self.low, self.high, most)
        step = values[1] - values[0] if len(values) > 1 else self.high - self.low
        decimals = max(0, math.ceil(-math.log10(step) - 1e-9))
        return tuple(Tick(self.at(value), tick_text(value, decimals)) for value in values)


def even_scale(values: Sequence[float], start: float, end: float, *, room: float = 0.06) -> Scale:
    """That holds all values, with a little room at both ends."""
    low, high = min(values), max(values)
    space = room * (high - low) or 1.0
    return Scale(low - space, high + space, start, end)


def log_scale(values: Sequence[float], start: float, end: float) -> Scale:
    """That holds all values, each above 0, with a little room at both ends."""
    low, high = min(values), max(values)
    factor = max((high / low) ** 0.06, 1.1)
    return Scale(low / factor, high * factor, start, end, log=True)


def tick_text(value: float, decimals: int = 6) -> str:
    """With no more decimals than are needed, and a true minus sign."""
    text = f"{value:,.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text.replace("-", "−")  # noqa: RUF001 - the sign that is as wide as a plus


def _even_values(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, at most `most` of them."""
    exponent = math.floor(math.log10((high - low) / most))
    steps = [factor * 10.0**power for power in (exponent, exponent + 1) for factor in (1, 2, 5)]
    for step in steps:
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [number * step for number in range(first, last + 1)]
    return [low, high]


def _log_values(low: float, high: float, most: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        values = [factor * 10.0**power for power in powers for factor in factors]
        inside = [value for value in values if low <= value <= high]
        if len(inside) <= most:
            return inside or [math.sqrt(low * high)]
    return [10.0**power for power in powers][:: math.ceil(len(powers) / most)]
