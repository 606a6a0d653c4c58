"""The temperature that makes a network's probabilities as sure as it is right."""

from __future__ import annotations

import math

from samdeploy.arrays import Float32Array, Int64Array
from samdeploy.bundle.answers import Calibration
from samdeploy.certainty.calibration import expected_calibration_error, mean_nll

# Below that a temperature is a guess: of 100 images a dozen decide.
LEAST_IMAGES = 100
# Networks have 0.5 to 4; the minimum lies at an end where the images say nothing about it.
_LIMITS = (0.05, 20.0)


def too_few(count: int) -> str:
    """In words, where a temperature cannot be fitted on so many images."""
    found = f"{count:,} validation images are too few, at least {LEAST_IMAGES} are needed"
    return found if count < LEAST_IMAGES else ""


def fit_temperature(logits: Float32Array, labels: Int64Array) -> Calibration | str:
    """The temperature with the least negative log-likelihood, or in words why there is none.

    It has one minimum over the temperature, as it is convex in 1 / T (Guo et al. 2017, section 4.2); Brent's bounded
    method finds it over log T.

    Args:
        logits: float32 [N, K], finite, of images that the network was not trained on.
        labels: int64 [N].
    """
    if few := too_few(len(labels)):
        return few
    if (logits.argmax(axis=1) == labels).all():
        return f"all {len(labels):,} validation images are answered rightly, so none shows how often it is wrong"

    from scipy.optimize import minimize_scalar

    low, high = map(math.log, _LIMITS)
    found = minimize_scalar(
        lambda log_t: mean_nll(logits, labels, math.exp(log_t)),
        bounds=(low, high), method="bounded", options={"xatol": 1e-5},
    )  # fmt: skip
    if not low + 0.01 < found.x < high - 0.01:
        return "no temperature from {:g} to {:g} fits the validation images".format(*_LIMITS)
    temperature = math.exp(found.x)
    nll, ece = (
        [measure(logits, labels, t) for t in (1.0, temperature)] for measure in (mean_nll, expected_calibration_error)
    )
    return Calibration(temperature, len(labels), *nll, *ece)
