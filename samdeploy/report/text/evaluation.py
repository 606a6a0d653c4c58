"""An evaluation for people: tables of at most 80 columns, and the verdict in one line."""

from __future__ import annotations

from collections.abc import Iterator

from samdeploy.evaluate.accuracy.against_training import NOT_COMPARED
from samdeploy.evaluate.accuracy.compare import Comparison
from samdeploy.evaluate.accuracy.probabilities import ProbabilityFigures
from samdeploy.evaluate.consistency.answers import ranges_text
from samdeploy.evaluate.consistency.checks import Consistency
from samdeploy.evaluate.consistency.probes import ProbeAnswers
from samdeploy.evaluate.map_agreement import CamAgreement
from samdeploy.evaluate.result import NotMeasured, Report, Result
from samdeploy.evaluate.test_set.open import AS_AT_TRAINING, TRAINED_ELSEWHERE
from samdeploy.evaluate.why.explain import Why
from samdeploy.report.text.why import why_table
from samdeploy.terminal import wording
from samdeploy.terminal.tables import Cell, entries, paragraph, table
from samdeploy.terminal.wording import NOT_FINITE, NOT_RUN, VERDICTS, engine_name, engine_outcome


def verdict(report: Report) -> str:
    """In a few words: passed or not, and what the verdict does not cover."""
    missing = [result.engine for result in report.results if not result.ran]
    hard = [*report.faults, *_failures(report)]
    gaps = [*hard[:1], *([f"and {len(hard) - 1} more, listed above"] if len(hard) > 1 else [])]
    gaps += [f"{NOT_RUN.word}: {', '.join(missing)}"] if missing else []
    gaps += _other_images(report)
    gaps += report.test_images.headline()
    how = "were looked at when the engines were made" if report.test_set == TRAINED_ELSEWHERE else "were trained on"
    gaps += [f"{text} {how}" for text in _trained_on(report)]
    gaps += [f"{report.reference} itself is no better than chance"] if report.is_chance else []
    below = [result.engine for result in report.results if result.below_minimum]
    gaps += [f"below the minimum asked for: {', '.join(below)}"] if below else []
    open_ends = [result.engine for result in report.results if result.comparison and not _is_consistent(result)]
    gaps += [f"consistency not shown: {', '.join(open_ends)}"] if open_ends else []
    parts = [row.parts.get("consistency") for row in report.results]
    tried = [part.batch_sizes for part in parts if isinstance(part, Consistency) and part.batch_sizes]
    gaps += [f"tried batch sizes {ranges_text(min(tried, key=max))}"] if report.verdict == "holds" and tried else []
    return VERDICTS[report.verdict].word.upper() + (f" ({'; '.join(gaps)})" if gaps else "")


def _failures(report: Report) -> list[str]:
    """What is worst about the engines that fail; what they miss of the minimum asked for is listed by itself."""
    rows = [row for row in report.failing() if row.ran and row.reason != row.below_minimum]
    return [f"{row.engine}: {row.worst or row.reason}" for row in rows]


def _other_images(report: Report) -> list[str]:
    against = report.against_training
    if against is not None and (against.remark or against.fault):
        return [against.remark] if against.remark else []
    if report.test_set == TRAINED_ELSEWHERE:
        return []
    gaps = [] if report.test_set == AS_AT_TRAINING else [f"test set {report.test_set}"]
    return gaps if against is not None else [*gaps, NOT_COMPARED]


def _trained_on(report: Report) -> list[str]:
    """ "14 of 54 test images": exact copies that are no fault yet; likenesses are in the notes."""
    overlaps = report.leaks.overlaps if report.leaks is not None else ()
    texts = [f"{row.exact:,} of {row.images:,} test images" for row in overlaps if row.exact and row.other == "train"]
    return [text for text in texts if not any(fault.startswith(text) for fault in report.faults)]


def _is_consistent(result: Result) -> bool:
    part = result.parts.get("consistency")
    return isinstance(part, Consistency) and (part.passed or bool(part.failures))  # a failure is in the verdict


def evaluation_tables(report: Report) -> str:
    """The engines, what the changed answers prove, and below them what the reader should know of each engine."""
    compared = [(_name(row), row.comparison) for row in report.results if row.comparison is not None]
    legend = (
        f"{report.n_images:,} test images; same class: as {report.reference}; largest difference: of a logit "
        f"from {report.reference}'s, as a share of the range of that image's logits; latency at batch 1"
    )
    if report.reference != "PyTorch":
        legend += f"; {report.reference}: as it was imported, in ONNX Runtime FP32 with optimisations off"
    blocks = [f"{_engines(report)}\n{paragraph(legend)}"]
    blocks += [_changes(compared, report)] if compared else []
    remarks = [*_remarks(report)]
    blocks += [entries(remarks)] if remarks else []
    blocks += [why_table(part) for row in report.results for part in row.parts.values() if isinstance(part, Why)]
    return "\n\n".join(blocks)


def _engines(report: Report) -> str:
    columns = ("<engine", "<verdict", ">top-1\n%", ">same\nclass %", ">largest\ndifference", ">p50\nms", ">p95\nms",
               ">p99\nms")  # fmt: skip
    found = next((row.comparison for row in report.results if row.comparison is not None), None)
    reference = (
        [(report.reference.removeprefix("the "), "reference", wording.percent(found.reference_top1), *[None] * 5)]
        if found
        else []
    )
    return table(columns, [*reference, *map(_engine, report.results)])


def _engine(row: Result) -> list[Cell]:
    outcome = engine_outcome(ran=row.ran, verdict=row.verdict, passed=row.passed)
    cells: list[Cell] = [_name(row), outcome.word]
    if (found := row.comparison) is not None:
        cells += [*map(wording.percent, (found.top1, found.top1_agreement))]
        cells.append(wording.difference(found.max_difference_of_range))
    cells += [None] * (5 - len(cells))
    if (times := row.latency) is not None:
        cells += [*map(wording.milliseconds, (times.p50_ms, times.p95_ms, times.p99_ms))]
    return cells + [None] * (8 - len(cells))


def _changes(compared: list[tuple[str, Comparison]], report: Report) -> str:
    """What the flips prove, for every engine that answered all images."""
    columns = ("<change of top-1", ">lost", ">gained", ">points", f">{100 * report.confidence:g} %\ninterval", ">p",
               ">top-5\n%", ">ECE\npoints")  # fmt: skip
    rows = [
        (
            name,
            found.change.lost,
            found.change.gained,
            wording.points(found.change.difference),
            wording.span(found.change.low, found.change.high, wording.points),
            wording.p_value(found.mcnemar_p),
            wording.percent(found.top5),
            NOT_FINITE if found.ece is None else wording.percent(found.ece),
        )
        for name, found in compared
    ]
    return f"{table(columns, rows)}\nlost: right in {report.reference}, wrong in the engine; p: McNemar, exact"


def _remarks(report: Report) -> Iterator[tuple[str, str]]:
    """(what it is about, what there is to say) in the order of the engines, what fails the evaluation at the end."""
    for row in report.results:
        yield from ((_name(row), text) for text in _findings(row, report))
    if report.test_set not in (AS_AT_TRAINING, TRAINED_ELSEWHERE):
        yield "test set", report.test_set
    yield from (("note", text) for text in (*report.notes, *report.left_out))
    yield from (("fault", text) for text in report.faults)
    yield from ((_name(row), row.reason) for row in report.results if row.reason)


def _findings(row: Result, report: Report) -> Iterator[str]:
    """What was found about an engine that is no reason by itself: reasons follow at the end."""
    worst = row.comparison.worst_class() if row.comparison is not None else None
    if worst is not None and worst.top1 < worst.reference_top1:
        change = wording.span(worst.reference_top1, worst.top1, wording.percent)
        yield f"loses most in class {report.class_names[worst.index]}: top-1 {change} % of {worst.images:,} images"
    if (found := row.comparison) is not None:
        balanced = wording.percent(found.balanced_accuracy)
        yield f"balanced accuracy {balanced} %, macro-F1 {found.macro_f1:.4f}"
    for name, part in row.parts.items():
        if isinstance(part, NotMeasured):
            yield f"{name}: not measured: {part.reason}"
        elif isinstance(part, ProbeAnswers) and not part.fault:
            yield part.summary
        elif isinstance(part, ProbabilityFigures):
            yield from _probabilities(part, report.confidence)
        elif isinstance(part, Consistency) and not part.failures:
            yield part.verdict
        elif isinstance(part, CamAgreement) and part.median is not None:
            yield (
                f"activation maps: rank correlation with {report.reference}'s {wording.correlation(part.minimum)} "
                f"at least, {wording.correlation(part.median)} in the median, n = {part.defined:,}"
            )
    if row.latency is not None and row.latency.noise:
        yield f"latency: {row.latency.noise}"


def _probabilities(found: ProbabilityFigures, level: float) -> Iterator[str]:
    if found.temperature is not None:
        worse = "; worse, so the validation images are too few or differ" if found.nll_after > found.nll_before else ""
        yield (
            f"probabilities: temperature {found.temperature:.3f} takes the calibration error from "
            f"{wording.percent(found.ece_before)} to {wording.percent(found.ece_after)} points, and the negative "
            f"log-likelihood from {found.nll_before:.4f} to {found.nll_after:.4f}{worse}"
        )
    if (kept := found.accepted) is not None and not kept.fault:
        error = "none" if kept.error is None else f"{wording.percent(kept.error)} %"
        shown = "as promised" if kept.promise == "kept" else "too few images to show what is promised"
        yield (
            f"rejection: {wording.percent(kept.coverage)} % of the images are accepted, and {error} of those wrong "
            f"({100 * level:g} % interval {wording.span(kept.error_low, kept.error_high, wording.percent)}): {shown}, "
            f"at most {kept.wanted_error:g} %"
        )


def _name(row: Result) -> str:
    return engine_name(row.backend, row.precision, row.device)
