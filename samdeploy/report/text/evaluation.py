"""An evaluation for people: tables of at most 80 columns, and the verdict in one line."""

from __future__ import annotations

import textwrap

from samdeploy.evaluate.accuracy.against_training import NOT_COMPARED
from samdeploy.evaluate.consistency.answers import ranges_text
from samdeploy.evaluate.consistency.checks import Consistency
from samdeploy.evaluate.consistency.probes import ProbeAnswers
from samdeploy.evaluate.map_agreement import CamAgreement
from samdeploy.evaluate.result import NotMeasured, Report, Result
from samdeploy.evaluate.test_set.open import AS_AT_TRAINING
from samdeploy.evaluate.why.explain import Why
from samdeploy.report.text.why import why_table
from samdeploy.terminal import printable

_HEADER = f"{'engine':<12} {'prec':<4} {'dev':<4} {'top-1':>6} {'PyTorch':>7} {'agree':>6} {'max diff':>8} " + (
    f"{'p50':>6} {'p95':>6} {'p99':>6} gate"
)
_GATE = {"holds": "ok", "cannot tell": "?"}
_VERDICT = {"holds": "PASSED", "fails": "NOT PASSED", "cannot tell": "CANNOT TELL"}


def verdict(report: Report) -> str:
    """In a few words: passed or not, and what the verdict does not cover."""
    missing = [result.engine for result in report.results if not result.ran]
    hard = [*report.faults, *_failures(report)]
    gaps = [*hard[:1], *([f"and {len(hard) - 1} more, listed above"] if len(hard) > 1 else [])]
    gaps += [f"not run here: {', '.join(missing)}"] if missing else []
    gaps += _other_images(report)
    gaps += report.test_images.headline()
    gaps += [f"{text} were trained on" for text in _trained_on(report)]
    below = [result.engine for result in report.results if result.below_minimum]
    gaps += [f"below the minimum asked for: {', '.join(below)}"] if below else []
    open_ends = [result.engine for result in report.results if result.comparison and not _is_consistent(result)]
    gaps += [f"consistency not shown: {', '.join(open_ends)}"] if open_ends else []
    parts = [row.parts.get("consistency") for row in report.results]
    tried = [part.batch_sizes for part in parts if isinstance(part, Consistency) and part.batch_sizes]
    gaps += [f"batch sizes {ranges_text(min(tried, key=max))} tried"] if report.verdict == "holds" and tried else []
    return _VERDICT[report.verdict] + (f" ({'; '.join(gaps)})" if gaps else "")


def _failures(report: Report) -> list[str]:
    """What is worst about the engines that fail; what they miss of the minimum asked for is listed by itself."""
    rows = [row for row in report.failing() if row.ran and row.reason != row.below_minimum]
    return [f"{row.engine}: {row.worst or row.reason}" for row in rows]


def _other_images(report: Report) -> list[str]:
    against = report.against_training
    if against is not None and (against.remark or against.fault):
        return [against.remark] if against.remark else []
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


def table(report: Report) -> str:
    """The report in at most 80 columns; reasons follow below the rows they belong to."""
    lines = [_HEADER, "-" * len(_HEADER)]
    lines += [_row(result) for result in report.results]
    lines.append(f"top-1 and agreement in %, n = {report.n_images:,} test images; latency in ms at batch 1;")
    lines.append("max diff: of a logit from PyTorch's, as a share of its image's range of logits")
    lines += _paired_lines(report)
    lines += _part_lines(report)
    if report.test_set != AS_AT_TRAINING:
        lines.append(f"test set: {report.test_set}")
    lines += [
        line
        for note in (*report.notes, *report.left_out)
        for line in textwrap.wrap(printable(note), 80, subsequent_indent="  ")
    ]
    for fault in report.faults:
        lines += textwrap.wrap(fault, 80, initial_indent="  ", subsequent_indent="    ")
    for result in report.results:
        if result.reason:
            text = f"{result.engine}: {result.reason}"
            lines += textwrap.wrap(text, 80, initial_indent="  ", subsequent_indent="    ")
    lines += [f"\n{why_table(part)}" for result in report.results for part in result.parts.values()
              if isinstance(part, Why)]  # fmt: skip
    return "\n".join(lines)


def _row(result: Result) -> str:
    start = f"{result.backend:<12} {result.precision:<4} "
    found, times = result.comparison, result.latency
    if not result.ran:
        return f"{start}{'-':<4} not run here"
    if found is None:
        return f"{start}{result.device:<4} {f'stopped after {result.n_images_done:,} images':<51} FAIL"
    numbers = f"{found.top1:6.2f} {found.reference_top1:7.2f} {found.top1_agreement:6.2f} "
    numbers += f"{found.max_difference_of_range:8.1e} "
    numbers += " ".join(map(_ms, (times.p50_ms, times.p95_ms, times.p99_ms))) if times else f"{'stopped':>20}"
    gate = "ok" if result.passed else _GATE.get(result.verdict or "", "FAIL")
    return f"{start}{result.device:<4} {numbers} {gate}"


def _paired_lines(report: Report) -> list[str]:
    """What the flips prove, for every engine that answered all pictures."""
    rows = [(result, result.comparison) for result in report.results if result.comparison is not None]
    if not rows:
        return []
    interval = f"{100 * report.confidence:g} % interval"
    header = f"{'change of top-1':<17} {'lost':>6} {'gained':>6} {'points':>7} {interval:>17} {'p':>6} "
    header += f"{'top-5':>6} {'ECE':>5}"
    lines = ["", header, "-" * len(header)]
    for result, found in rows:
        change = found.change
        top5 = "-" if found.top5 is None else f"{found.top5:.2f}"
        ece = "-" if found.ece is None else f"{found.ece:.2f}"
        lines.append(
            f"{result.engine:<17} {change.lost:6} {change.gained:6} {change.difference:+7.2f} "
            f"{f'{change.low:+.2f} to {change.high:+.2f}':>17} {found.mcnemar_p:6.3f} {top5:>6} {ece:>5}"
        )
    lines.append("lost: right in PyTorch, wrong in the engine; p: McNemar, exact; ECE in points")
    for result, found in rows:
        worst = found.worst_class()
        if worst.top1 < worst.reference_top1:
            text = f"loses most in {result.engine}: class {printable(report.class_names[worst.index])}, top-1 "
            text += f"{worst.reference_top1:.2f} to {worst.top1:.2f} % of {worst.images:,} images"
            lines += textwrap.wrap(text, 80, subsequent_indent="  ")
    return lines


def _part_lines(report: Report) -> list[str]:
    """What the further checks found that is no reason by itself: those are in the rows' reasons."""
    lines: list[str] = []
    for result in report.results:
        for name, part in result.parts.items():
            text = f"{name}: not measured: {part.reason}" if isinstance(part, NotMeasured) else ""
            if isinstance(part, ProbeAnswers) and not part.fault:
                text = part.summary
            elif isinstance(part, Consistency) and not part.failures:
                text = part.verdict
            elif isinstance(part, CamAgreement) and part.median is not None:
                text = f"activation maps: rank correlation with PyTorch's {part.minimum:.4f} at least, "
                text += f"{part.median:.4f} in the median, n = {part.defined}"
            lines += textwrap.wrap(f"{result.engine}: {text}", 80, subsequent_indent="  ") if text else []
        if result.latency is not None and result.latency.noise:
            lines += textwrap.wrap(f"{result.engine}: latency: {result.latency.noise}", 80, subsequent_indent="  ")
    return lines


def _ms(value: float) -> str:
    """Six characters with as many digits as fit."""
    return f"{value:6.3f}" if value < 10 else f"{value:6.2f}" if value < 999.995 else f"{value:6.0f}"
