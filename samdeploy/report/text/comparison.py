"""A comparison of two networks for people: tables of at most 80 columns, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from samdeploy.compare.answers import Accuracies, Answers, Rate
from samdeploy.compare.latency import LatencyRatio, Times
from samdeploy.compare.result import CompareReport, Network
from samdeploy.images.walk import counted
from samdeploy.terminal import wording
from samdeploy.terminal.tables import Cell, entries, paragraph, table
from samdeploy.terminal.wording import NOT_FINITE, VERDICTS, engine_name

# Classes, and pairs of classes, that are listed.
MOST_LISTED = 10


def comparison_tables(report: CompareReport, *, shown: int) -> str:
    """What was compared, who is better, where they differ, and what the reader should know.

    Args:
        shown: images with different answers that are listed, at most.
    """
    found, answers = report.answers.accuracies, report.answers
    blocks = [entries(_head(report)), _networks(report)]
    if found is not None:
        blocks += [_change(found, answers.agreement, report.confidence), _classes(found, report.class_names)]
    if answers.moves:
        blocks.append(_moves(answers))
    if answers.differing and shown:
        blocks.append(_differing(report, shown))
    remarks = [*_remarks(report)]
    return "\n\n".join([*blocks, *([entries(remarks)] if remarks else [])])


def comparison_verdict(report: CompareReport) -> str:
    """Whether B keeps the margin, and why not; "" where none was asked."""
    if report.verdict is None:
        return ""
    kept = f"B loses less top-1 than --margin {report.margin:g}"
    why = f"B against A: {'; '.join(report.reasons)}" if report.reasons else kept
    return paragraph(f"{VERDICTS[report.verdict].word.upper()}: {why}")


def _head(report: CompareReport) -> Iterator[tuple[str, str]]:
    images = report.images
    for name, network in (("A", report.a), ("B", report.b)):
        kind = "run without a bundle, by its weights: " if network.is_run else ""
        size = f"{network.preprocessing.height}x{network.preprocessing.width}"
        yield name, f"{network.path} ({kind}{network.arch}, {size})"
    yield "engine", f"{engine_name(report.backend, report.precision, report.device)}, for both"
    parts = [f"{images.compared:,} {images.source}"]
    parts += [] if images.is_labelled else ["without labels"]
    parts += [f"{counted(images.copies, 'copy', 'copies')} left out"] if images.copies else []
    parts += [f"{len(images.unreadable):,} unreadable left out"] if images.unreadable else []
    yield "images", ", ".join(parts)
    yield "trained on", f"A: {_trained_on(report.a, images.compared)}"
    yield "trained on", f"B: {_trained_on(report.b, images.compared)}"


def _trained_on(network: Network, images: int) -> str:
    count = network.seen_in("train")
    share = f"{count:,} of these images ({100 * count / images:.1f} %)" if count else "none of these images"
    if network.is_imported:
        made = f"; its engines were made with {share}" if count else ""
        return f"not known, it was trained elsewhere{made}"
    if count is None:
        return "not known, there are no hashes of its training images"
    in_val = network.seen_in("val")
    return share + (f"; {in_val:,} are in its val, which chose the epoch" if in_val else "")


def _networks(report: CompareReport) -> str:
    found, latency = report.answers.accuracies, report.latency
    interval = f">{100 * report.confidence:g} %\ninterval"
    columns = [
        "<network",
        *([">top-1\n%", interval] if found else []),
        *([">p50\nms", ">p10 to p90\nms"] * bool(latency)),
    ]
    if len(columns) == 1:
        return _agreement(report.answers.agreement, report.confidence)
    rows: list[list[Cell]] = [
        [name, *(_accuracy(top1) if top1 else ()), *(_times(times) if times else ())]
        for name, top1, times in (
            ("A", found and found.a, latency and latency.a),
            ("B", found and found.b, latency and latency.b),
        )
    ]
    lines = [table(columns, rows)]
    if latency is not None:
        lines.append(paragraph(_speed(latency)))
    if found is None:
        lines += ["", _agreement(report.answers.agreement, report.confidence)]
    return "\n".join(lines)


def _accuracy(rate: Rate) -> tuple[Cell, ...]:
    return wording.percent(rate.percent), wording.span(rate.low, rate.high, wording.percent)


def _times(times: Times) -> tuple[Cell, ...]:
    return wording.milliseconds(times.p50_ms), wording.span(times.p10_ms, times.p90_ms, wording.milliseconds)


def _speed(latency: LatencyRatio) -> str:
    around = f" (95 % interval {wording.span(latency.low, latency.high, wording.ratio)})"
    return (
        f"B takes {wording.ratio(latency.median)} times as long as A{'' if latency.noise else around}; one image at a "
        f"time, {latency.rounds} rounds in turns{f'; not to be relied on: {latency.noise}' if latency.noise else ''}"
    )


def _agreement(rate: Rate, confidence: float) -> str:
    around = wording.span(rate.low, rate.high, wording.percent)
    text = f"same class for {wording.percent(rate.percent)} % of the images ({100 * confidence:g} % interval {around})"
    return paragraph(text)


def _change(found: Accuracies, agreement: Rate, confidence: float) -> str:
    interval = f">{100 * confidence:g} %\ninterval"
    columns = ("<B against A", ">points", interval, ">only A\nright", ">only B\nright", ">p", ">same\nclass %")
    change = found.change
    row = (
        "top-1",
        wording.points(change.difference),
        wording.span(change.low, change.high, wording.points),
        change.lost,
        change.gained,
        wording.p_value(found.mcnemar_p),
        wording.percent(agreement.percent),
    )
    return f"{table(columns, [row])}\nnegative: B is worse; p: McNemar, exact"


def _classes(found: Accuracies, class_names: Sequence[str]) -> str:
    moved = [row for row in found.classes if row.top1 != row.reference_top1]
    if not moved:
        return "both are right as often in every class"
    columns = ("<class", ">images", ">A\n%", ">B\n%", ">points")
    rows = [
        (
            class_names[row.index],
            row.images,
            wording.percent(row.reference_top1),
            wording.percent(row.top1),
            wording.points(row.top1 - row.reference_top1),
        )
        for row in moved[:MOST_LISTED]
    ]
    return _with_rest(table(columns, rows), len(moved), "classes, which moved less")


def _moves(answers: Answers) -> str:
    rows = [(_class(a), _class(b), count) for a, b, count in answers.moves[:MOST_LISTED]]
    return _with_rest(table(("<A says", "<B says", ">images"), rows), len(answers.moves), "pairs of classes")


def _differing(report: CompareReport, shown: int) -> str:
    rows = report.answers.differing
    has_labels = report.images.is_labelled
    columns = [
        "<image",
        *(["<label"] if has_labels else []),
        "<A",
        ">%",
        "<B",
        ">%",
        *(["<right"] if has_labels else []),
    ]
    below = f"{report.images.folder}/"
    cells: list[list[Cell]] = [
        [
            name.removeprefix(below),
            *([row.label] if has_labels else []),
            *(_class(row.a), _share(row.a_probability), _class(row.b), _share(row.b_probability)),
            *([row.right] if has_labels else []),
        ]
        for name, row in zip(report.names[:shown], rows[:shown], strict=True)
    ]
    return _with_rest(table(columns, cells), len(rows), "images: --show N, --json FILE or --out DIR", listed=shown)


def _with_rest(text: str, total: int, what: str, *, listed: int = MOST_LISTED) -> str:
    return f"{text}\nand {total - listed:,} more {what}" if total > listed else text


def _class(name: str | None) -> str:
    return NOT_FINITE if name is None else name


def _share(probability: float | None) -> str | None:
    return None if probability is None else wording.percent(100 * probability)


def _remarks(report: CompareReport) -> Iterator[tuple[str, str]]:
    if report.is_same_network:
        yield "note", "A and B are the same network: equal weights, classes and preprocessing"
    yield from (("note", text) for text in (*report.notes, *report.images.notes))
