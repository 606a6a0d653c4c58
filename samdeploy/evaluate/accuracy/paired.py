"""What two classifiers' answers to the same images prove about their accuracies.

Only images that one of them gets right and the other wrong tell the two apart: the **flips**.  An image is *lost* if
the reference is right and the engine wrong, *gained* the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass

from samdeploy.certainty.rates import greatest_rate, least_rate

# Beyond this, "so many images would decide" is no help to anyone.
MOST_IMAGES = 10**9


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Change of top-1 from the reference to the engine; negative where the engine is worse.

    Attributes:
        lost, gained: flips each way.
        n_images: images that both answered.
        confidence: with which the interval holds the true change, in (0, 1).
        difference, low, high: the change found and the interval's ends, in percentage points.
    """

    lost: int
    gained: int
    n_images: int
    confidence: float
    difference: float
    low: float
    high: float


def paired_difference(lost: int, gained: int, n_images: int, confidence: float) -> PairedDifference:
    """The change of top-1 and its two-sided confidence interval.

    The rates of losses and of gains each get the exact interval of Clopper and Pearson (Biometrika 26, 1934, 404-413),
    and their difference the worst combination of the ends.  Each of the four ends may be wrong with a quarter of
    1 - confidence, so by Bonferroni's inequality the interval holds the true change with at least `confidence`,
    whatever the true rates and however few the images, also where no flip was seen.  The usual intervals of paired
    proportions (Wald, Newcombe, Tango) are narrower, and promise that for many images only.

    Args:
        lost, gained: flips each way, together at most `n_images`.
        n_images: at least 1.
        confidence: in (0, 1).
    """
    low, high = _interval(lost, gained, n_images, confidence)
    return PairedDifference(lost, gained, n_images, confidence, 100 * (gained - lost) / n_images, low, high)


def rate_interval(hits: int, n_images: int, confidence: float) -> tuple[float, float]:
    """The two-sided exact interval of Clopper and Pearson for a rate, in percent.

    Args:
        hits: of `n_images`, at least 1.
        confidence: in (0, 1).
    """
    error = (1 - confidence) / 2
    return 100 * least_rate(hits, n_images, error), 100 * greatest_rate(hits, n_images, error)


def mcnemar_p(lost: int, gained: int) -> float:
    """How probable flips at least as lopsided as these are, were both directions equally likely.

    McNemar's test (Psychometrika 12, 1947, 153-157) in its exact form: two-sided binomial on the flips.  1 without any.
    """
    from scipy.stats import binomtest

    return float(binomtest(lost, lost + gained, 0.5).pvalue) if lost + gained else 1.0


def images_needed(found: PairedDifference, margin: float) -> int | None:
    """With how many images, at the rates of flips seen here, the interval would no longer hold -margin.

    Found by bisection with the same interval.  None where not even `MOST_IMAGES` would do: the change is the margin.

    Args:
        found: an interval that holds -margin.
        margin: in points.
    """
    lost, gained = found.lost / found.n_images, found.gained / found.n_images

    def is_decided(n_images: int) -> bool:
        # Rates times images are no whole numbers; Clopper's and Pearson's ends are defined in between as well.
        low, high = _interval(lost * n_images, gained * n_images, n_images, found.confidence)
        return low > -margin or high < -margin

    too_few = enough = found.n_images
    while not is_decided(enough):
        too_few, enough = enough, 2 * enough
        if too_few > MOST_IMAGES:
            return None
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if is_decided(middle) else (middle, enough)
    return enough


def _interval(lost: float, gained: float, n_images: int, confidence: float) -> tuple[float, float]:
    error = (1 - confidence) / 4
    low = least_rate(gained, n_images, error) - greatest_rate(lost, n_images, error)
    high = greatest_rate(gained, n_images, error) - least_rate(lost, n_images, error)
    return 100 * low, 100 * high
