"""An evaluation as JUnit XML, which CI systems show as a list of tests.

One suite for each engine and one for the evaluation as a whole.  A case fails exactly where `samdeploy eval` exits
with 1 on its account, so the file never contradicts the exit code; what was not asked is skipped, never passed.  The
format has no binding standard; the keys are those of https://github.com/testmoapp/junitxml.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from samdeploy.evaluate.accuracy.compare import Comparison
from samdeploy.evaluate.accuracy.gate import logits_differ, small_difference
from samdeploy.evaluate.accuracy.probabilities import ProbabilityFigures
from samdeploy.evaluate.consistency.probes import ProbeAnswers
from samdeploy.evaluate.result import Report, Result
from samdeploy.evaluate.test_set.open import AS_AT_TRAINING, TRAINED_ELSEWHERE
from samdeploy.terminal.wording import NOT_FINITE, NOT_RUN, STOPPED, VERDICTS

# All that XML 1.0 section 2.2 does not allow, not even escaped; runtimes colour their messages with escape sequences.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class _Case:
    """One line of the list; `summary`: the part of `text` that matters most, where it has several."""

    name: str
    outcome: Outcome = "passed"
    text: str = ""
    kind: str = "gate"
    summary: str = ""


def junit_xml(report: Report) -> bytes:
    """The rows of one evaluation as UTF-8 XML."""
    suites = [(result.engine, result.date, list(_engine_cases(result, report))) for result in report.results]
    suites.append(("evaluation", max((row.date for row in report.results), default=""), list(_overall_cases(report))))
    figures = {result.engine: result.comparison for result in report.results}
    root = ElementTree.Element(
        "testsuites", {"name": "samdeploy eval", **_counts([c for _, _, cs in suites for c in cs])}
    )
    for name, date, cases in suites:
        suite = ElementTree.SubElement(root, "testsuite", {"name": _clean(name), **_counts(cases)})
        if date:
            suite.set("timestamp", date)
        _add_properties(suite, figures.get(name))
        for case in cases:
            _add(suite, name, case)
    ElementTree.indent(root)
    content: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def _add_properties(suite: ElementTree.Element, found: Comparison | None) -> None:
    """Accuracy as properties of the suite, which CI systems plot over builds."""
    if found is None:
        return
    properties = ElementTree.SubElement(suite, "properties")
    for name in ("top1", "balanced_accuracy", "macro_f1"):
        ElementTree.SubElement(properties, "property", {"name": name, "value": f"{getattr(found, name):.6g}"})


def _engine_cases(result: Result, report: Report) -> Iterator[_Case]:
    found = result.comparison
    if not result.ran:
        # Asked for by name, it is a promise; among "all", this machine just cannot say.
        yield _Case("runs here", "failed" if report.named else "skipped", result.reason, NOT_RUN.word)
        return
    yield _Case("runs here")
    if found is None:
        yield _Case("answers every test image", "failed", result.reason, STOPPED.word)
        return
    yield _Case("answers every test image")
    if result.verdict is None:
        yield _Case("accuracy gate", "skipped", "the engine stopped before it was judged")
        yield _Case("every promise", "failed", result.reason, STOPPED.word, result.worst)
        return
    gate = VERDICTS[result.verdict].word
    holds = result.verdict == "holds"
    yield _Case("accuracy gate", "passed" if holds else "failed", "" if holds else result.reason, gate, result.worst)
    yield _logits(result)
    if report.floors.asked:
        below = result.below_minimum
        yield _Case("minimum accuracy", "failed" if below else "passed", below, "minimum")
    yield from _accepted(result)
    every = _Case("every promise", "failed", result.reason, summary=result.worst)
    yield _Case("every promise") if result.passed else every
    yield _probes(result)
    yield from _consistency(result)
    if result.latency is None:
        yield _Case("latency is steady", "skipped", "not measured")
    else:
        # A busy machine is no fault of the engine, and no reason for an exit code.
        yield _Case("latency is steady", "passed" if result.latency.steady else "skipped", result.latency.noise)


def _logits(result: Result) -> _Case:
    found = result.comparison
    assert found is not None
    if not found.finite:
        return _Case("logits", "failed", f"logits are {NOT_FINITE}")
    if result.precision == "fp32" and not small_difference(found):
        return _Case("logits", "failed", logits_differ(found))
    return _Case("logits")


def _accepted(result: Result) -> Iterator[_Case]:
    part = result.parts.get("probabilities")
    if not isinstance(part, ProbabilityFigures) or part.accepted is None:
        return
    outcome: Outcome = {"kept": "passed", "broken": "failed"}.get(part.accepted.promise, "skipped")  # type: ignore[assignment]
    few = f"{part.accepted.images:,} accepted images are too few to show it" if outcome == "skipped" else ""
    yield _Case("error of accepted answers", outcome, part.fault or few, "rejection")


def _probes(result: Result) -> _Case:
    part = result.parts.get("probes")
    if not isinstance(part, ProbeAnswers):
        return _Case("probe images", "skipped", getattr(part, "reason", "not measured"))
    return _Case("probe images", "failed" if part.fault else "passed", part.fault)


def _consistency(result: Result) -> Iterator[_Case]:
    part = result.parts.get("consistency")
    found = part.to_json() if part is not None else {}
    if "checks" not in found:
        yield _Case("consistency", "skipped", found.get("reason", "not measured"))
        return
    checks: list[dict[str, Any]] = found["checks"]
    for check in checks:
        outcome: Outcome = {"passed": "passed", "failed": "failed"}.get(check["outcome"], "skipped")  # type: ignore[assignment]
        yield _Case(f"consistency: {check['name']}", outcome, check["detail"])


def _overall_cases(report: Report) -> Iterator[_Case]:
    same = report.test_set == AS_AT_TRAINING
    against = report.against_training
    other = "" if same else (against.remark if against else "") or report.test_set
    if report.test_set != TRAINED_ELSEWHERE:
        yield _Case("test set is the one at training", "passed" if same else "skipped", other)
    yield _leaks(report)
    faults = report.faults
    first = next(iter(faults), "")
    yield _Case("the evaluation is valid", "failed" if faults else "passed", "; ".join(faults), "fault", first)
    remarks = "; ".join((*report.test_images.headline(), *report.test_images.notes()))
    yield _Case("test images are distinct and of all classes", "skipped" if remarks else "passed", remarks)
    reasons = [f"{row.engine}: {row.reason}" for row in report.results if row.reason and (row.ran or report.named)]
    found = [*faults, *reasons] or ["no engine could run here"]
    kind = VERDICTS[report.verdict].word
    yield _Case("verdict") if report.passed else _Case("verdict", "failed", "; ".join(found), kind, found[0])


def _leaks(report: Report) -> _Case:
    """Copies are reported here; where they are too many, the evaluation is not valid."""
    how = "used to make the engines" if report.test_set == TRAINED_ELSEWHERE else "trained on"
    name = f"leak guard: no test image was {how}"
    if report.leaks is None:
        return _Case(name, "skipped", "the bundle has no hashes of its training images: samdeploy export")
    lines = report.leaks.lines()
    return _Case(name, "skipped" if lines else "passed", "; ".join(lines))


def _counts(cases: list[_Case]) -> dict[str, str]:
    failures, skipped = (sum(case.outcome == outcome for case in cases) for outcome in ("failed", "skipped"))
    return {"tests": str(len(cases)), "failures": str(failures), "errors": "0", "skipped": str(skipped)}


def _add(suite: ElementTree.Element, engine: str, case: _Case) -> None:
    element = ElementTree.SubElement(
        suite, "testcase", {"classname": _clean(f"samdeploy.eval.{engine}"), "name": _clean(case.name)}
    )
    text = _clean(case.text)
    if case.outcome == "failed":
        failure = ElementTree.SubElement(
            element, "failure", {"message": _clean(case.summary) or text, "type": case.kind}
        )
        failure.text = text
    elif case.outcome == "skipped":
        ElementTree.SubElement(element, "skipped", {"message": text})


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
