"""The verdict in one sentence, and what it does not cover."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from samdeploy.bundle.names import set_name
from samdeploy.evaluate.accuracy.against_training import NOT_COMPARED
from samdeploy.evaluate.test_set.open import AS_AT_TRAINING, TRAINED_ELSEWHERE
from samdeploy.report.rows import engine_name, listed, outcome
from samdeploy.terminal.wording import VERDICTS, Outcome, percent


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the first lines of the report say.

    Attributes:
        outcome: one of `VERDICTS`.
        sentence: why, for someone who reads nothing else.
        not_covered: what no one may conclude from it, one sentence each.
    """

    outcome: Outcome
    sentence: str
    not_covered: tuple[str, ...]


def verdict_of(evaluation: Mapping[str, Any]) -> Verdict:
    """The verdict of an evaluation, as in `eval.json`."""
    return Verdict(VERDICTS[evaluation["verdict"]], _sentence(evaluation), tuple(_not_covered(evaluation)))


def _sentence(evaluation: Mapping[str, Any]) -> str:
    rows = [row for row in evaluation["results"] if row["ran"]]
    if evaluation["faults"]:
        return f"This evaluation proves nothing about the engines: {'; '.join(evaluation['faults'])}."
    images = f"{evaluation['n_images']:,} test images of {set_name(evaluation['dataset'])}"
    if not rows:
        return "No engine could run on this machine, so nothing is shown."
    if evaluation["verdict"] == "holds":
        every = f"Every engine that was run ({listed([engine_name(row) for row in rows])})"
        if all(row["top1_agreement"] == 100 for row in rows):
            return f"{every} names the same class as the trained network for each of the {images}."
        return (
            f"{every} is as accurate as the trained network on the {images}: none loses {evaluation['margin']:g} "
            f"points of top-1 or more, with {100 * evaluation['confidence']:g} % confidence."
        )
    if evaluation["verdict"] == "cannot tell":
        waiting = [row for row in rows if not row["passed"]]
        needed = [row["n_needed"] for row in waiting]
        enough = f" About {max(needed):,} would be enough." if all(needed) else ""
        lose = "lose" if len(waiting) > 1 else "loses"
        return (
            f"No fault was found, but {images} are too few to show that "
            f"{listed([engine_name(row) for row in waiting])} {lose} less than {evaluation['margin']:g} points of "
            f"top-1.{enough}"
        )
    failed = [row for row in rows if outcome(row).kind == "bad"]
    if not failed:
        absent = listed([engine_name(row) for row in evaluation["results"] if not row["ran"]])
        return f"{absent} was asked for and was not run, so nothing is shown about it."
    names = listed([engine_name(row) for row in failed])
    if all(row["reason"] == row["below_minimum"] for row in failed):
        return f"{names} did not reach the accuracy that was asked for: {failed[0]['below_minimum']}."
    if all(row["reason"] == (broken := _broken_promise(row)) and broken for row in failed):
        return f"{names}: {_broken_promise(failed[0])}."
    return f"Do not use {names} in place of the trained network: the promise to answer as it does was not kept."


def _broken_promise(row: Mapping[str, Any]) -> str:
    """Why too many of an engine's accepted answers are wrong; "" if they are not."""
    return str((row.get("probabilities", {}).get("accepted") or {}).get("fault", ""))


def _not_covered(evaluation: Mapping[str, Any]) -> list[str]:
    rows = evaluation["results"]
    gaps = [f"{engine_name(row)} was not run: {row['reason']}." for row in rows if not row["ran"]]
    gaps += [f"{text[0].upper()}{text[1:]}." for text in evaluation["left_out"]]
    against = evaluation["against_training"]
    elsewhere = evaluation["test_set"] == TRAINED_ELSEWHERE
    if elsewhere:
        gaps.append("The network was trained elsewhere: whether it has seen these images is not known.")
    elif against is None:
        gaps.append(f"{NOT_COMPARED[0].upper()}{NOT_COMPARED[1:]}.")
    if against is not None and not against["same_images"]:
        gaps.append(
            "The test images are not those that training measured: the network's top-1 is "
            f"{percent(against['top1'])} % on these, and was {percent(against['measured_top1'])} % on those."
        )
    elif evaluation["test_set"] != AS_AT_TRAINING and not elsewhere:
        gaps.append(f"The test images are not proven to be those that training measured: {evaluation['test_set']}.")
    gaps += [f"{text[0].upper()}{text[1:]}." for text in evaluation["test_images"]["remarks"]]
    leaked = [row for row in (evaluation.get("leaks") or {"overlaps": []})["overlaps"] if row["exact"] or row["near"]]
    gaps += [gap for row in leaked for gap in _shared(row)]
    noisy = [engine_name(row) for row in rows if row.get("latency") and not row["latency"]["steady"]]
    if noisy:
        gaps.append(f"The times of {listed(noisy)} are too noisy to be relied on.")
    unfinished = [engine_name(row) for row in rows if _is_unfinished(row.get("consistency", {}))]
    if unfinished:
        gaps.append(f"There was no time for all checks of {listed(unfinished)} against itself; see Self-consistency.")
    unasked = [engine_name(row) for row in rows if row["ran"] and "checks" not in row.get("consistency", ())]
    if unasked:
        gaps.append(f"Other batch sizes, threads and repeats were not tried with {listed(unasked)}.")
    if evaluation["is_chance"]:
        gaps.insert(0, "The network itself names classes no better than a die does.")
    gaps.append(
        "Whether the trained network is good enough for its purpose is another question; its accuracy on these "
        f"images is given below under {evaluation['reference']}. On images of another kind it may be lower."
    )
    return gaps


def _shared(row: Mapping[str, Any]) -> list[str]:
    """What two splits share: copies are a fact, and likenesses a suspicion."""
    of, nothing = f"of {row['images']:,} {row['split']} images", "accuracy on them says nothing about new images."
    copies = f"{row['exact']:,} {of} stand in {row['other']} too: {nothing}"
    likenesses = f"{row['near'] or 0:,} {of} look like one in {row['other']}; where they are copies, {nothing}"
    return [copies] * bool(row["exact"]) + [likenesses] * bool(row["near"])


def _is_unfinished(consistency: Mapping[str, Any]) -> bool:
    return any(check["outcome"] == "not finished" for check in consistency.get("checks", ()))
