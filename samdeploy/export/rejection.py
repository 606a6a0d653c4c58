"""The probability below which an answer is rejected, with a bound on the error of those that are not."""

from __future__ import annotations

import math

import numpy as np

from samdeploy.arrays import BoolArray, Float64Array
from samdeploy.bundle.answers import Rejection
from samdeploy.certainty.rates import greatest_rate
from samdeploy.errors import ExportError

# How probable it may be that the promise does not hold.
DOUBT = 0.05
MORE_IMAGES = "train with a larger data.val_fraction, or import with more images"
# Thresholds that are tried.
_STEPS = 50
# One image in so many chooses.  With more of them less could be proven, with fewer the choice is poor.
_SHARE = 4
# Probabilities are that fine.
_DECIMALS = 6


def images_needed(wanted_error: float) -> int:
    """With so many validation images `choose_rejection` can find a threshold, if it may accept all and none is wrong.

    Args:
        wanted_error: in percent.
    """
    to_prove = math.ceil(math.log(DOUBT) / math.log1p(-wanted_error / 100))
    return to_prove + (to_prove - 1) // (_SHARE - 1)


def choosing(count: int) -> BoolArray:
    """bool [count]: which of the images choose, always the same quarter at random; the others prove."""
    chooses = np.zeros(count, np.bool_)
    chooses[np.random.default_rng(0).permutation(count)[: count // _SHARE]] = True
    return chooses


def choose_rejection(sure: Float64Array, is_wrong: BoolArray, wanted_error: float) -> Rejection:
    """The lowest threshold that keeps the error rate of accepted images at most `wanted_error`, with 95 % confidence.

    To choose the threshold on the images that prove it would break the bound: among many thresholds some look good by
    chance.  This is fixed sequence testing with an order learnt on a split of the data (A. N. Angelopoulos, S. Bates,
    E. J. Candes, M. I. Jordan, L. Lei, "Learn then Test: Calibrating Predictive Algorithms to Achieve Risk Control",
    arXiv:2110.01052).  One part of the images orders the thresholds: first the one whose bound is lowest there, then
    lower ones.  The other part tests each in this order, with the exact upper bound of Clopper and Pearson at 95 %, up
    to the first that fails; the last that passed is taken.  A wrong one is taken only if the first wrong one in the
    order passes, which has a probability of at most 5 %: the 5 % need not be shared out among the thresholds.

    It holds for images like those of validation, of which each is independent of the others and was not trained on.

    Args:
        sure: float64 [N], the highest probability of each image.  Of the images, `choosing(N)` alone may have been
            looked at for the temperature.
        is_wrong: bool [N].
        wanted_error: in percent, above 0 and below 100.

    Raises:
        ExportError: no threshold can be shown to keep it.
    """
    chooses = choosing(len(sure))
    proves = ~chooses
    order = np.unique(np.round(np.quantile(sure[chooses], np.linspace(0, 1, _STEPS)), _DECIMALS))[::-1]
    order[-1] = 0.0  # accepts every image
    first = int(np.argmin([_bound(sure[chooses], is_wrong[chooses], threshold)[0] for threshold in order]))
    taken = None
    for threshold in order[first:].tolist():
        bound, coverage = _bound(sure[proves], is_wrong[proves], threshold)
        if bound > wanted_error:
            break
        taken = Rejection(threshold, wanted_error, bound, coverage, int(proves.sum()))
    if taken is None:
        raise ExportError(
            f"--reject-error {wanted_error:g}: {len(sure):,} validation images do not show that any threshold keeps "
            f"the error of accepted answers at {wanted_error:g} %; the most promising one keeps it at {bound:.2f} %, "
            f"with 95 % confidence. Ask for a higher percentage, or {MORE_IMAGES}"
        )
    return taken


def _bound(sure: Float64Array, is_wrong: BoolArray, threshold: float) -> tuple[float, float]:
    """The upper bound on the error of accepted images, and the share that is accepted, in percent."""
    accepted = sure >= threshold
    count = int(accepted.sum())
    return 100 * greatest_rate(int((accepted & is_wrong).sum()), count, DOUBT), 100 * count / len(sure)
