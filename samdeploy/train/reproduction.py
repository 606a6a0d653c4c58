"""What repeated trainings found: mean, standard deviation and interval, as table, JSON and plot."""

from __future__ import annotations

import dataclasses
import io
import math
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import scipy.stats

from samdeploy.files import json_bytes, write_atomic
from samdeploy.terminal.tables import paragraph, table
from samdeploy.terminal.wording import percent, span

CONFIDENCE = 0.95
# Okabe and Ito's palette, which people who see colours differently can tell apart.
_RUN, _MEAN, _PUBLISHED = "#0072B2", "black", "#D55E00"


@dataclass(frozen=True, slots=True)
class Published:
    """A figure of the original work.

    Attributes:
        top1: in percent.
        measures: what it is, in words.
    """

    top1: float
    measures: str


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """One training.

    Attributes:
        seed: of fresh weights, dropout, augmentation and order.
        path: its run directory; None where it diverged in its first epoch, so that nothing is left of it.
        test_top1, test_correct, test_images: from the one evaluation on the test images; None if it diverged.
        val_top1, best_epoch: of the weights that were kept.
        last_batch: what the published script would have reported, where its protocol is repeated.
    """

    seed: int
    path: str | None
    test_top1: float | None
    test_correct: int | None
    test_images: int | None
    val_top1: float
    best_epoch: int
    last_batch: str | None


@dataclass(frozen=True, slots=True)
class Reproduction:
    """All runs so far.

    Attributes:
        recipe: its name.
        measures: what the runs' test figure is, in words.
        runs: in the order of their seeds.
        published: the original work's figure for this data set, if it has one.
        fingerprint: of the test images, the same for all runs.
        machine: device and versions of the last run.
    """

    recipe: str
    measures: str
    runs: tuple[FinishedRun, ...]
    published: Published | None
    fingerprint: str = ""
    machine: str = ""

    def figures(self) -> list[float]:
        """Test top-1 of the runs that reached their end, in percent."""
        return [run.test_top1 for run in self.runs if run.test_top1 is not None]

    def mean(self) -> float | None:
        """In percent; None without a figure."""
        figures = self.figures()
        return sum(figures) / len(figures) if figures else None

    def sd(self) -> float | None:
        """Standard deviation of the runs (divided by n - 1), in points; None for fewer than two."""
        figures, mean = self.figures(), self.mean()
        if mean is None or len(figures) < 2:
            return None
        return math.sqrt(sum((figure - mean) ** 2 for figure in figures) / (len(figures) - 1))

    def interval(self) -> tuple[float, float] | None:
        """Where the mean of endlessly many such runs lies: Student's t, 95 %.

        None for fewer than two runs, and where all are equal: on few test images that happens, and an interval of no
        width would promise what nobody knows.

        Seeds vary and test images do not: it says nothing about other images.  Cut at 0 and 100 %.
        """
        mean, sd, n = self.mean(), self.sd(), len(self.figures())
        if mean is None or not sd:
            return None
        half = float(scipy.stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * sd / math.sqrt(n)
        return max(0.0, mean - half), min(100.0, mean + half)

    def to_json(self) -> dict[str, Any]:
        """As in reproduce.json; percent and points."""
        interval = self.interval()
        return {
            "recipe": self.recipe,
            "measures": self.measures,
            "n": len(self.figures()),
            "mean": self.mean(),
            "sd": self.sd(),
            "confidence": CONFIDENCE,
            "interval": None if interval is None else list(interval),
            "published": None if self.published is None else dataclasses.asdict(self.published),
            "runs": [dataclasses.asdict(run) for run in self.runs],
            "test_fingerprint": self.fingerprint,
            "machine": self.machine,
        }


def write_reproduction(path: Path, found: Reproduction) -> None:
    """Write reproduce.json, atomically."""
    write_atomic(path, json_bytes(found.to_json()))


def reproduction_table(found: Reproduction) -> str:
    """A line per run, and below it what they say together; at most 80 columns."""
    columns = (">seed", ">test\ntop-1, %", ">right", ">of", ">val\ntop-1, %", ">best\nepoch")
    rows = [
        (
            str(run.seed),
            "diverged" if run.test_top1 is None else percent(run.test_top1),
            run.test_correct,
            run.test_images,
            percent(run.val_top1),
            run.best_epoch,
        )
        for run in found.runs
    ]
    lines = [table(columns, rows), "", paragraph(_summary(found))]
    if found.published is not None:
        lines.append(paragraph(f"published: {percent(found.published.top1)} %: {found.published.measures}"))
    return "\n".join(lines)


def reproduction_png(found: Reproduction) -> bytes:
    """Every run as a point, the mean with its interval, and the published figure."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figures, mean, interval = found.figures(), found.mean(), found.interval()
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(8, 3.6), dpi=110, layout="constrained")
        axes = figure.subplots()
        seeds = [run.seed for run in found.runs if run.test_top1 is not None]
        axes.plot(seeds, figures, "o", color=_RUN, label="runs")
        if mean is not None:
            axes.axhline(mean, color=_MEAN, lw=1, label=f"mean {mean:.2f} %")
        if interval is not None:
            axes.axhspan(*interval, color=_MEAN, alpha=0.12, lw=0, label="95 % interval of the mean")
        if found.published is not None:
            text = f"published {found.published.top1:.2f} %"
            axes.axhline(found.published.top1, color=_PUBLISHED, lw=1, ls="--", label=text)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("seed")
        axes.set_ylabel("test top-1 (%)")
        axes.margins(y=0.15)
        axes.grid(alpha=0.25, lw=0.5)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        diverged = f", {len(found.runs) - len(figures)} diverged" if len(found.runs) > len(figures) else ""
        title = "\n".join(textwrap.wrap(f"{found.recipe}, {len(figures)} runs{diverged}: {found.measures}", 95))
        axes.set_title(title, loc="left", fontsize=9)
        content = io.BytesIO()
        figure.savefig(content, format="png")
    return content.getvalue()


def _summary(found: Reproduction) -> str:
    figures, mean, sd, interval = found.figures(), found.mean(), found.sd(), found.interval()
    if mean is None:
        return f"all {len(found.runs)} runs diverged"
    parts = [f"mean {mean:.2f} %"]
    if sd is not None and interval is not None:
        between = span(*interval, percent)
        parts.append(f"standard deviation {sd:.2f} points, 95 % interval of the mean {between} (Student's t)")
    elif sd is not None:
        parts.append("all the same, which says nothing about the spread")
    diverged = len(found.runs) - len(figures)
    if diverged:
        parts.append(f"{diverged} of {len(found.runs)} runs diverged and are not in it")
    return f"{', '.join(parts)}; n = {len(figures)} runs. This is {found.measures}"
