"""What the plots show, in their own units; `plots.svg.j2` draws them with the page's own colours, light or dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from samdeploy.report.records import EngineRates, HeadroomRecord
from samdeploy.report.scale import Scale, Tick, even_scale, log_scale
from samdeploy.terminal.wording import Kind, bits

# A telephone shows this many units side by side without making letters smaller than on the page around them.
WIDTH = 340.0
_LEFT, _RIGHT = 8.0, WIDTH - 8.0
_ROW, _HEAD, _FOOT = 40.0, 20.0, 42.0  # the head holds the names of the lines
# Signs of different shape, so that lines are told apart without colours.
MARKERS = ("circle", "square", "triangle", "diamond", "cross", "ring")


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the axes of a plot lie; `axis`: what is along it; `description`: the plot in words."""

    description: str
    axis: str
    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Range:
    """One row of a range plot, in the data's units, or drawn in the plot's own.

    Attributes:
        label, text: what it is, and its value in words.
        point: the value, between `low` and `high`.
        inner: a thick part of the line, or None.
        kind: chooses the colour; the text says the same.
        y: the line's height, once it is drawn.
    """

    label: str
    text: str
    low: float
    point: float
    high: float
    inner: tuple[float, float] | None = None
    kind: Kind = "none"
    y: float = 0.0


@dataclass(frozen=True, slots=True)
class RangePlot(Frame):
    """Points with whiskers over one axis, one row each; `lines` are values to compare with."""

    rows: tuple[Range, ...]
    ticks: tuple[Tick, ...]
    lines: tuple[Tick, ...]


def range_plot(
    rows: Sequence[Range], *, axis: str, description: str, lines: Sequence[tuple[float, str]] = (), log: bool = False
) -> RangePlot:
    """Lay out rows one below the other.

    Args:
        rows: at least one.
        axis: what the values are, with their unit.
        description: the plot in words, for those who cannot see it.
        lines: values to compare with; one that has a name is drawn dashed.
        log: equal distances are equal factors; all values are then above 0.
    """
    values = [value for row in rows for value in (row.low, row.high)] + [value for value, _ in lines]
    scale: Scale = (log_scale if log else even_scale)(values, _LEFT, _RIGHT)
    top = _HEAD if lines else 0.0
    bottom = top + _ROW * len(rows) + 4
    drawn = tuple(
        replace(
            row,
            low=scale.at(row.low),
            point=scale.at(row.point),
            high=scale.at(row.high),
            inner=(scale.at(row.inner[0]), scale.at(row.inner[1])) if row.inner else None,
            y=top + _ROW * place + 28,
        )
        for place, row in enumerate(rows)
    )
    marks = tuple(Tick(scale.at(value), name) for value, name in lines)
    size = (WIDTH, bottom + _FOOT, _LEFT, _RIGHT, top, bottom)
    return RangePlot(description, axis, *size, drawn, scale.ticks(), marks)


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its name, its marker, and its places."""

    name: str
    marker: str
    number: int
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class LinePlot(Frame):
    """Lines over two axes; `left` is where the vertical one is, `across` and `along` are values to compare with."""

    series: tuple[Series, ...]
    ticks: tuple[Tick, ...]
    side_ticks: tuple[Tick, ...]
    across: tuple[Tick, ...] = ()
    along: tuple[Tick, ...] = ()


def sweep_plot(engines: Sequence[EngineRates]) -> LinePlot:
    """Images per second over batch sizes, for at least one engine with at least one point."""
    left, top, bottom = 48.0, 12.0, 190.0
    sizes = sorted({point.batch for engine in engines for point in engine.batches})
    across = log_scale([float(size) for size in sizes], left, _RIGHT)
    up = Scale(
        0.0, 1.08 * max(point.images_per_s for engine in engines for point in engine.batches) or 1.0, bottom, top
    )
    series = tuple(
        Series(
            engine.name,
            MARKERS[number % len(MARKERS)],
            number % len(MARKERS),
            tuple((across.at(point.batch), up.at(point.images_per_s)) for point in engine.batches),
        )
        for number, engine in enumerate(engines)
    )
    names = ", ".join(engine.name for engine in engines)
    shown = sizes[:: -(-len(sizes) // 8)]
    description = f"Images per second over the batch size for {names}; the figures are in the table beside it."
    size = (WIDTH, bottom + _FOOT, left, _RIGHT, top, bottom)
    ticks = tuple(Tick(across.at(batch), str(batch)) for batch in shown)
    return LinePlot(description, "batch size", *size, series, ticks, up.ticks(5))


def risk_plot(
    engines: Sequence[tuple[str, Sequence[tuple[float, float]]]], threshold: tuple[float, float] | None
) -> LinePlot:
    """Error among accepted images over coverage.

    Args:
        engines: the name of each, and its pairs of coverage and error, in percent; at least one.
        threshold: its coverage and the error that is wanted there, in percent; None: there is none.
    """
    left, right, top, bottom = 48.0, _RIGHT - 8, 20.0, 190.0  # half of "100" is beyond the axis
    across = Scale(0.0, 100.0, left, right)
    largest = max([error for _, risk in engines for _, error in risk] + [threshold[1] if threshold else 0.0])
    up = Scale(0.0, 1.08 * largest or 1.0, bottom, top)
    series = tuple(
        Series(
            name,
            MARKERS[number % len(MARKERS)],
            number % len(MARKERS),
            tuple((across.at(coverage), up.at(error)) for coverage, error in risk),
        )
        for number, (name, risk) in enumerate(engines)
    )
    marks: tuple[tuple[Tick, ...], ...] = ()
    if threshold:
        marks = (Tick(across.at(threshold[0]), "threshold"),), (Tick(up.at(threshold[1]), "allowed"),)
    names = ", ".join(name for name, _ in engines)
    description = f"Percentage of wrong answers among the surest ones, over the share of images, for {names}."
    size = (WIDTH, bottom + _FOOT, left, right, top, bottom)
    axis = "accepted images, the surest first, in percent"
    return LinePlot(description, axis, *size, series, across.ticks(), up.ticks(5), *marks)


@dataclass(frozen=True, slots=True)
class Bar:
    """One tensor: left edge, width, upper edge, height, and what it is in words."""

    x: float
    width: float
    y: float
    height: float
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class BarPlot(Frame):
    """Bars over the depth of the network; `zero` is the height of the end of FP16."""

    zero: float
    bars: tuple[Bar, ...]
    stages: tuple[Tick, ...]
    side_ticks: tuple[Tick, ...]


# Below this many bits the export rescales; an image of another kind may need the room.
_TIGHT_BITS = 3.0


def headroom_plot(record: HeadroomRecord) -> BarPlot:
    """Bits of head-room of every tensor, in the order of the graph; for at least one tensor."""
    left, right, top, bottom = 34.0, 716.0, 20.0, 200.0
    rooms = list(record.bits().items())
    values = [room for _, room in rooms]
    up = Scale(min(0.0, *values), max(4.0, *values), bottom, top)
    step = (right - left) / len(values)
    zero = up.at(0.0)
    bars, stages = [], []
    for place, (name, room) in enumerate(rooms):
        end, x = up.at(room), left + place * step
        kind: Kind = "bad" if room < 0 else "open" if room < _TIGHT_BITS else "good"
        height = max(1.0, round(abs(end - zero), 2))
        text = f"{name}: {bits(room)} bits"
        bars.append(Bar(round(x + 0.1 * step, 2), round(0.8 * step, 2), min(end, zero), height, kind, text))
        stage = name.split(".")[0]
        before = rooms[place - 1][0].split(".")[0] if place else ""
        if stage.startswith("layer") and stage != before:
            stages.append(Tick(round(x, 2), stage))
    name, least = min(rooms, key=lambda room: room[1])
    order = "tensors in the order of the graph"
    description = f"Bits of head-room of {len(values)} {order}; the least is {bits(least)} at {name}."
    axis = f"{order}; dashed: end of FP16 (65,504)"
    size = (right + 4, bottom + 24, left, right, top, bottom)
    return BarPlot(description, axis, *size, zero, tuple(bars), tuple(stages), up.ticks(6))


@dataclass(frozen=True, slots=True)
class Histogram(Frame):
    """Bars now, and beside each a bar of before; `before` is empty where that is not known."""

    now: tuple[Bar, ...]
    before: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    side_ticks: tuple[Tick, ...]


def histogram(now: Sequence[float], before: Sequence[float] | None) -> Histogram:
    """Percentages of images over equal parts of the probability, 0 to 100 %.

    Args:
        now: percentages, the least probability first; at least one.
        before: as many, of other images; None: there are none.
    """
    left, right, top, bottom = 40.0, _RIGHT - 8, 12.0, 190.0
    across = Scale(0.0, 100.0, left, right)
    up = Scale(0.0, 1.05 * max(*now, *(before or ()), 1.0), bottom, top)
    step = (right - left) / len(now)
    width = step * (0.42 if before else 0.84)

    def bars(shares: Sequence[float], shift: float, of: str) -> tuple[Bar, ...]:
        return tuple(
            Bar(
                round(left + (place + 0.08) * step + shift, 2), round(width, 2), round(up.at(share), 2),
                round(bottom - up.at(share), 2), "none",
                f"{of}: {100 * place / len(shares):g} to {100 * (place + 1) / len(shares):g} %, {share:.2f} %",
            )
            for place, share in enumerate(shares)
        )  # fmt: skip

    surest = f"{now[-1]:.1f} % of the images are in the surest part"
    spoken = f"{surest}, and {before[-1]:.1f} % of the validation images" if before else surest
    size = (WIDTH, bottom + _FOOT, left, right, top, bottom)
    return Histogram(
        f"Images over the probability of their class: {spoken}.", "probability of the class, in percent", *size,
        bars(now, 0.0, "these images"), bars(before or (), width, "validation"), across.ticks(), up.ticks(5),
    )  # fmt: skip
