"""The report as one HTML file: no script, no font and no image from elsewhere.

Names of classes and files come from whoever made the data, so everything is escaped, and a content security policy
forbids what would still get through.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from samdeploy.bundle import Bundle
from samdeploy.bundle.names import set_name
from samdeploy.evaluate.accuracy.gate import FP32_DIFFERENCE
from samdeploy.report.evidence import Evidence
from samdeploy.report.plots import LinePlot, Range, RangePlot, headroom_plot, range_plot, risk_plot, sweep_plot
from samdeploy.report.records import Against
from samdeploy.report.rows import Row, answered, engine_name, outcome
from samdeploy.report.tables import check_table, class_table
from samdeploy.report.verdict import verdict_of
from samdeploy.terminal import printable, wording
from samdeploy.terminal.wording import ratio, span

# Of one engine; the rest can be opened.
_IMAGES_AT_ONCE = 12

# Functions of `wording` that the page uses as filters.
_NUMBERS = ("percent", "floored", "points", "milliseconds", "rate", "difference", "magnitude", "bits", "count",
            "p_value", "correlation")  # fmt: skip
_MINUS = "−"  # noqa: RUF001 - the sign that is as wide as a plus
_NONE = "–"  # noqa: RUF001 - stands for "no value"


def render_html(evaluation: Mapping[str, Any], evidence: Evidence, bundle: Bundle) -> str:
    """The whole page.

    Args:
        evaluation: as in `eval.json`.
        evidence: what else there is to show.
        bundle: what was evaluated.
    """
    rows = evaluation["results"]
    measured = [row for row in rows if answered(row)]
    timed = [row for row in rows if row.get("latency")]
    context = {
        "evaluation": evaluation,
        "evidence": evidence,
        "missing": evidence.missing,
        "bundle": bundle,
        "verdict": verdict_of(evaluation),
        "rows": rows,
        "measured": measured,
        "timed": timed,
        "confidence": 100 * evaluation["confidence"],
        "fp32_difference": FP32_DIFFERENCE,
        "at_once": _IMAGES_AT_ONCE,
        "interval_plot": _interval_plot(evaluation, measured),
        "latency_plot": _latency_plot(timed),
        "probable": [row for row in measured if "probabilities" in row],
        "risk_plot": _risk_plot(measured),
        "sweep_plot": sweep_plot(evidence.bench.engines) if evidence.bench and evidence.bench.engines else None,
        "against_plots": [
            (each, plot)
            for each in (evidence.against.against if evidence.against else ())
            if (plot := _against_plot(each)) is not None
        ],
        "headroom_plot": headroom_plot(evidence.headroom) if evidence.headroom and evidence.headroom.bits() else None,
        "classes": class_table(rows),
        "checks": check_table(rows),
        "cams": [row for row in rows if "images" in row.get("cam", ())],
        "without_cams": [row for row in rows if "cam" in row and "images" not in row["cam"]],
        "evaluation_classes": bundle.spec.classes,
        "sweep_sizes": sorted(
            {p.batch for each in (evidence.bench.engines if evidence.bench else ()) for p in each.batches}
        ),
    }
    return page_environment().get_template("page.html.j2").render(context)


def _safe(value: object) -> object:
    """Names of classes and files may turn the text around them: control and bidirectional characters as escapes."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return "\n".join(map(printable, value.split("\n")))
    return value


def page_environment() -> Environment:
    """What renders the pages: everything escaped, numbers in their notation."""
    environment = Environment(
        loader=PackageLoader("samdeploy.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_safe,
    )
    for name in _NUMBERS:
        environment.filters[name] = _typographic(getattr(wording, name))
    environment.filters |= {
        "engine": engine_name,
        "outcome": outcome,
        "set_name": set_name,
        "day": lambda date: date[:16].replace("T", " ") + " UTC" if date else _NONE,
    }
    return environment


def _typographic(write: Callable[..., str]) -> Callable[..., str]:
    """A number of `wording` with the signs of print: a true minus, and a dash for "no value"."""

    def written(value: Any) -> str:
        text = write(value)
        return _NONE if text == wording.NONE else text.replace("-", _MINUS) if text[:1] == "-" else text

    return written


_points = _typographic(wording.points)


def _interval_plot(evaluation: Mapping[str, Any], measured: list[Row]) -> RangePlot | None:
    if not measured:
        return None
    rows = [
        Range(
            engine_name(row),
            f"{_points(row['difference'])} ({span(row['difference_low'], row['difference_high'], _points)})",
            row["difference_low"],
            row["difference"],
            row["difference_high"],
            kind=outcome(row).kind,
        )
        for row in measured
    ]
    margin = evaluation["margin"]
    spoken = "; ".join(f"{row.label} {row.text}" for row in rows)
    return range_plot(
        rows,
        axis=f"change of top-1 from {evaluation['reference']} to the engine, in points",
        description=f"Change of top-1 with its interval: {spoken}. The margin is {margin:g} points below zero.",
        lines=((0.0, ""), (-margin, "margin")),
    )


def _risk_plot(measured: list[Row]) -> LinePlot | None:
    found = [(engine_name(row), row["probabilities"]) for row in measured if "probabilities" in row]
    if not found:
        return None
    accepted = found[0][1]["accepted"]
    threshold = (accepted["coverage"], accepted["wanted_error"]) if accepted else None
    return risk_plot([(name, figures["risk"]) for name, figures in found], threshold)


def _latency_plot(timed: list[Row]) -> RangePlot | None:
    if not timed:
        return None
    rows = []
    for row in timed:
        found = row["latency"]
        text = f"{wording.milliseconds(found['p50_ms'])} ms" + ("" if found["steady"] else ", too noisy")
        kind = "none" if found["steady"] else "open"
        inner = (found["p50_ms"], found["p90_ms"])
        rows.append(
            Range(engine_name(row), text, found["p50_ms"], found["p50_ms"], found["max_ms"], inner, kind)  # type: ignore[arg-type]
        )
    spoken = "; ".join(f"{row.label} {row.text}" for row in rows)
    return range_plot(
        rows,
        axis="milliseconds for one image (log scale)",
        description=f"Median, 90th percentile and slowest run of one image: {spoken}.",
        log=True,
    )


def _against_plot(against: Against) -> RangePlot | None:
    rows = []
    for row in against.rows:
        if row.times_base is None or row.times_base_p10 is None or row.times_base_p90 is None:
            continue
        text = f"{ratio(row.times_base)}x ({span(row.times_base_p10, row.times_base_p90, ratio)})"
        low, high = min(row.times_base_p10, row.times_base), max(row.times_base_p90, row.times_base)
        rows.append(Range(row.engine, text, low, row.times_base, high, kind="good" if row.ours else "none"))
    if not rows:
        return None
    spoken = "; ".join(f"{row.label} {row.text}" for row in rows)
    return range_plot(
        rows,
        axis=f"times as fast as {against.base}, batch {against.batch}",
        description=f"Speed beside the alternatives, as a ratio to {against.base}: {spoken}.",
        lines=((1.0, ""),),
    )
