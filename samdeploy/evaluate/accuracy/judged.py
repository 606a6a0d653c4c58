"""From what is kept of an engine's answers to its row of the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from samdeploy.arrays import Int64Array
from samdeploy.bundle import Bundle
from samdeploy.evaluate.accuracy.compare import Comparison, compare_facts
from samdeploy.evaluate.accuracy.facts import ImageFacts
from samdeploy.evaluate.accuracy.gate import Judgement, judge, worst_first
from samdeploy.evaluate.accuracy.probabilities import probability_figures
from samdeploy.evaluate.options import EvalOptions
from samdeploy.evaluate.result import NotMeasured, Part, Result


@dataclass(frozen=True, slots=True)
class Judged:
    """What an engine's answers to the test images say of it."""

    facts: ImageFacts
    comparison: Comparison
    judgement: Judgement


def judge_facts(facts: ImageFacts, precision: str, bundle: Bundle, options: EvalOptions, places: Int64Array) -> Judged:
    """Compare and judge an engine.

    Args:
        facts: of its answers.
        precision: that it computes in.
        bundle: names the classes.
        options: margin and confidence.
        places: int64 [N], where in the test set each image is.
    """
    comparison = compare_facts(facts, len(bundle.spec.classes), confidence=options.confidence, places=places)
    return Judged(facts, comparison, judge(comparison, precision, options.margin))


def conclude(
    row: Callable[..., Result],
    judged: Judged,
    bundle: Bundle,
    options: EvalOptions,
    faults: Sequence[str],
    parts: Mapping[str, Part],
) -> Result:
    """The row, with the verdict of gate, minimums, threshold and whatever else was found.

    Args:
        row: makes it, but for what follows from the arguments.
        judged: the engine.
        bundle: its classes, temperature and threshold.
        options: minimums and confidence.
        faults: beside the accuracy, in words.
        parts: further checks.
    """
    faults, parts, judgement = list(faults), dict(parts), judged.judgement
    below = options.floors.missed(judged.comparison, bundle.spec.classes)
    faults += [below] if below else []
    if judged.comparison.finite and judged.facts.from_logits:
        parts["probabilities"] = figures = probability_figures(judged.facts, bundle, options.confidence)
        faults += [figures.fault] if figures.fault else []
    elif judged.comparison.finite:
        parts["probabilities"] = NotMeasured("only classes were written; label with --logits float32")
    reasons = worst_first([*judgement.reasons, *faults], judgement)
    verdict = "fails" if faults else judgement.verdict
    return row(
        reason="; ".join(reasons), worst="".join(reasons[:1]), verdict=verdict,
        passed=verdict == "holds" and not reasons,
        n_needed=judgement.n_needed, below_minimum=below, parts=parts,
    )  # fmt: skip
