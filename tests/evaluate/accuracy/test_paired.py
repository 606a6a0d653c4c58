"""The interval keeps its promise at any number of images, and the number that would decide does decide."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from scipy.stats import binom, binomtest, multinomial

from samdeploy.evaluate.accuracy.paired import _interval, images_needed, mcnemar_p, paired_difference


@pytest.mark.parametrize(("lost", "gained", "n"), [(0, 0, 1), (0, 0, 359), (5, 0, 359), (3, 7, 1000), (40, 60, 100)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_ends_are_scipys_exact_ones_at_a_quarter_of_the_error(
    lost: int, gained: int, n: int, confidence: float
) -> None:
    # binomtest's two-sided interval leaves half of its error to each end; ours a quarter of the whole.
    losses, gains = (
        binomtest(hits, n).proportion_ci(1 - (1 - confidence) / 2, method="exact") for hits in (lost, gained)
    )
    found = paired_difference(lost, gained, n, confidence)
    assert found.difference == pytest.approx(100 * (gained - lost) / n, abs=1e-12)
    assert found.low == pytest.approx(100 * (gains.low - losses.high), abs=1e-7)
    assert found.high == pytest.approx(100 * (gains.high - losses.low), abs=1e-7)
    assert found.low <= found.difference <= found.high


def test_no_flips_at_all() -> None:
    """The end has a closed form: a rate of which n images show nothing with a probability of 0.0125."""
    found = paired_difference(0, 0, 359, 0.95)
    assert found.high == -found.low == pytest.approx(100 * (1 - 0.0125 ** (1 / 359)))
    assert found.high == pytest.approx(1.213, abs=5e-4)


def test_exchanging_losses_and_gains_mirrors_the_interval() -> None:
    one, other = paired_difference(3, 11, 500, 0.9), paired_difference(11, 3, 500, 0.9)
    assert (one.low, one.high, one.difference) == pytest.approx((-other.high, -other.low, -other.difference))


@pytest.mark.parametrize("n", [10, 100, 359, 2000])
@pytest.mark.parametrize(("loss", "gain"), [(0.0, 0.0), (0.002, 0.002), (0.03, 0.0), (0.02, 0.05), (0.3, 0.3)])
def test_the_interval_holds_the_true_change_as_often_as_it_says(n: int, loss: float, gain: float) -> None:
    """Simulated: 4,000 test sets with known rates of flips.  The promise is for each end by itself, too."""
    trials, confidence = 4000, 0.9
    draws = multinomial(n, [loss, gain, 1 - loss - gain]).rvs(trials, random_state=np.random.default_rng(n))
    flips, counts = np.unique(draws[:, :2], axis=0, return_counts=True)
    ends = np.array([_interval(int(lost), int(gained), n, confidence) for lost, gained in flips])
    truth = 100 * (gain - loss)
    above, below = counts[ends[:, 0] > truth].sum(), counts[ends[:, 1] < truth].sum()
    # Allowed to miss at most one side in twenty; what chance adds to that in 4,000 draws, once in a million.
    most = binom.isf(1e-6, trials, (1 - confidence) / 2)
    assert max(above, below) <= most


def test_the_interval_is_not_needlessly_wide() -> None:
    """One that held everything would pass the test above: against the usual asymptotic one, for many images."""
    lost, gained, n = 300, 200, 10_000
    found = paired_difference(lost, gained, n, 0.95)
    rates = np.array([lost, gained]) / n
    wald = 1.96 * 100 * math.sqrt((rates.sum() - (rates[1] - rates[0]) ** 2) / n)
    assert wald < (found.high - found.low) / 2 < 1.75 * wald


@pytest.mark.parametrize(("lost", "gained", "p"), [(0, 0, 1.0), (4, 4, 1.0), (1, 0, 1.0), (5, 0, 2 / 32),
                                                   (0, 5, 2 / 32), (8, 1, 2 * (1 + 9) / 512)])  # fmt: skip
def test_mcnemar_by_hand(lost: int, gained: int, p: float) -> None:
    assert mcnemar_p(lost, gained) == pytest.approx(p)


def test_mcnemar_of_many_flips_is_the_chi_squared_one() -> None:
    # With the correction for continuity: (|b - c| - 1)^2 / (b + c) = 6.0025 -> p of a normal deviate of 2.45.
    z = (abs(550 - 472) - 1) / math.sqrt(1022)
    assert mcnemar_p(550, 472) == pytest.approx(2 * (1 - statistics.NormalDist().cdf(z)), rel=0.01)


def test_without_flips_the_number_needed_has_a_closed_form() -> None:
    # (1 - margin)^n <= 0.0125
    for margin, n in ((0.5, 875), (1.0, 437), (0.1, 4380)):
        assert math.ceil(math.log(0.0125) / math.log(1 - margin / 100)) == n
        assert images_needed(paired_difference(0, 0, 100, 0.95), margin) == n


@pytest.mark.parametrize(("lost", "gained", "n", "margin"), [(2, 1, 359, 0.5), (4, 0, 359, 2.0), (1, 4, 359, 0.5),
                                                             (3, 1, 250, 0.5)])  # fmt: skip
def test_the_number_needed_decides_and_one_less_does_not(lost: int, gained: int, n: int, margin: float) -> None:
    found = paired_difference(lost, gained, n, 0.95)
    assert found.low < -margin < found.high
    needed = images_needed(found, margin)
    assert needed is not None and needed > n
    for images, is_decided in ((needed - 1, False), (needed, True)):
        low, high = _interval(lost / n * images, gained / n * images, images, 0.95)
        assert (low > -margin or high < -margin) is is_decided
    # In the direction that the rates point to.
    low, high = _interval(lost / n * needed, gained / n * needed, needed, 0.95)
    assert (low > -margin) is (100 * (gained - lost) / n > -margin)


def test_no_number_decides_where_the_change_is_the_margin() -> None:
    assert images_needed(paired_difference(5, 0, 1000, 0.95), 0.5) is None
