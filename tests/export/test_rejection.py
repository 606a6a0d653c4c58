"""The threshold below which answers are rejected keeps its promise, and says when it cannot."""

from __future__ import annotations

import numpy as np
import pytest

from samdeploy.certainty.rates import greatest_rate
from samdeploy.errors import ExportError
from samdeploy.export.rejection import DOUBT, choose_rejection, choosing, images_needed

WANTED = 15.0
VALIDATIONS = 300
# Of 300 honest validations, more than this many break the promise in one of 1,000 series (binomial, 5 %).
MOST_BROKEN = 28


def answers(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and whether each answer is wrong: less often than they say below 0.7, more often above 0.9."""
    sure = random.beta(4, 1, count)
    return sure, random.random(count) < np.where(sure > 0.9, 1.3, 0.8) * (1 - sure)


@pytest.fixture(scope="module")
def true_error() -> np.ndarray:
    """[2, N]: probabilities, ascending, and the error rate in percent of all answers that are at least so sure."""
    sure, is_wrong = answers(np.random.default_rng(99), 1_000_000)
    order = np.argsort(-sure)
    return np.array([sure[order], 100 * np.cumsum(is_wrong[order]) / np.arange(1, len(sure) + 1)])[:, ::-1]


def test_promise_is_broken_in_at_most_5_percent_of_validations(true_error: np.ndarray) -> None:
    random, broken, coverages = np.random.default_rng(5), 0, []
    for _ in range(VALIDATIONS):
        sure, is_wrong = answers(random, 600)
        try:
            found = choose_rejection(sure, is_wrong, WANTED)
        except ExportError:
            continue
        broken += error_at(found.threshold, true_error) > WANTED
        coverages.append(found.coverage)
    assert broken <= MOST_BROKEN
    # It could be kept by accepting nothing: 94 % of the images have an error of 15 %.
    assert len(coverages) > 0.8 * VALIDATIONS and np.median(coverages) > 60


def test_probabilities_that_mean_nothing_are_found_out() -> None:
    """Whatever is accepted, 10.1 % of it are wrong: whoever names a threshold for 10 % breaks the promise."""
    random, named, naive_named = np.random.default_rng(6), 0, 0
    for _ in range(VALIDATIONS):
        sure, is_wrong = random.random(400), random.random(400) < 0.101
        naive_named += naive(sure, is_wrong, 10) < 1
        try:
            choose_rejection(sure, is_wrong, 10)
        except ExportError:
            continue
        named += 1
    assert named <= MOST_BROKEN < naive_named


def error_at(threshold: float, true_error: np.ndarray) -> float:
    place = min(int(np.searchsorted(true_error[0], threshold)), true_error.shape[1] - 1000)
    return float(true_error[1, place])


def naive(sure: np.ndarray, is_wrong: np.ndarray, wanted: float) -> float:
    """The lowest threshold whose bound is low enough, chosen and proven on the same images; 1 where there is none."""
    for threshold in np.quantile(sure, np.linspace(0, 1, 50)):
        kept = sure >= threshold
        if 100 * greatest_rate(int((kept & is_wrong).sum()), int(kept.sum()), DOUBT) <= wanted:
            return float(threshold)
    return 1.0


def test_bound_and_coverage_are_those_of_images_that_did_not_choose() -> None:
    sure, is_wrong = answers(np.random.default_rng(1), 2000)
    found = choose_rejection(sure, is_wrong, WANTED)
    kept = (sure >= found.threshold) & ~choosing(2000)
    assert found.images == 1500
    assert found.coverage == pytest.approx(kept.sum() / 15)
    assert found.bound == pytest.approx(100 * greatest_rate(int((kept & is_wrong).sum()), int(kept.sum()), 0.05))
    assert found.bound <= found.wanted_error == WANTED


@pytest.mark.parametrize(("wanted", "needed"), [(2, 198), (5, 78), (0.1, 3993)])
def test_fewest_images_are_just_enough(wanted: float, needed: int) -> None:
    assert images_needed(wanted) == needed
    sure, never = np.linspace(0.5, 1, needed), np.zeros(needed, np.bool_)
    assert choose_rejection(sure, never, wanted).threshold == 0.0
    with pytest.raises(ExportError, match="do not show that any threshold"):
        choose_rejection(sure[1:], never[1:], wanted)


def test_answers_that_are_all_alike_are_all_accepted_or_none() -> None:
    same, wrong = np.ones(1000), np.arange(1000) % 50 == 0
    assert choose_rejection(same, wrong, 5).coverage == 100
    with pytest.raises(ExportError, match="keeps it at 3"):
        choose_rejection(same, wrong, 2)
