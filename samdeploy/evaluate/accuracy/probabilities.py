"""Whether the probabilities that applications get are true, and whether rejected answers leave the promised error."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from samdeploy.arrays import BoolArray, Float64Array
from samdeploy.bundle import Bundle
from samdeploy.bundle.answers import Rejection
from samdeploy.certainty.calibration import calibration_error
from samdeploy.evaluate.accuracy.facts import ImageFacts
from samdeploy.evaluate.accuracy.paired import rate_interval

Promise = Literal["kept", "broken", "cannot tell"]

# Shares of the images, the surest first, at which their error is listed.
_COVERAGES = np.arange(5, 101, 5)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answers that the bundle's threshold does not reject.

    Attributes:
        threshold, wanted_error: of the bundle, see `samdeploy.bundle.answers.Rejection`.
        images, wrong: accepted test images, and how many of them are answered wrongly.
        coverage: accepted test images, in percent.
        error: wrong ones among the accepted, in percent; None where none is accepted.
        error_low, error_high: its exact interval (Clopper and Pearson), in percent.
    """

    threshold: float
    wanted_error: float
    images: int
    wrong: int
    coverage: float
    error: float | None
    error_low: float
    error_high: float

    @property
    def promise(self) -> Promise:
        """The whole interval lies below the wanted error, or above it, or the images are too few to tell."""
        if self.error_high <= self.wanted_error:
            return "kept"
        return "broken" if self.error_low > self.wanted_error else "cannot tell"

    @property
    def fault(self) -> str:
        """In words, if the promise is broken; else ""."""
        if self.promise != "broken":
            return ""
        return (
            f"{self.error:.2f} % of the {self.images:,} accepted answers are wrong ({self.error_low:.2f} to "
            f"{self.error_high:.2f} %), and the bundle promises at most {self.wanted_error:g} %; export with other "
            "validation images, or without --reject-error"
        )


@dataclass(frozen=True, slots=True)
class ProbabilityFigures:
    """One engine's probabilities on the test images.

    Attributes:
        temperature: of the bundle; None where none was fitted.
        nll_before, nll_after: mean negative log-likelihood, in nats, without and with the temperature.
        ece_before, ece_after: expected calibration error, in points, likewise.
        risk: (coverage, error) in percent: how many of the surest so many percent of the images are answered wrongly
            (Geifman and El-Yaniv 2017, arXiv:1705.08500).
        accepted: None where the bundle rejects nothing.
    """

    temperature: float | None
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    risk: tuple[tuple[float, float], ...]
    accepted: Accepted | None

    @property
    def fault(self) -> str:
        """See `Accepted.fault`."""
        return self.accepted.fault if self.accepted else ""

    def to_json(self) -> dict[str, Any]:
        """As in eval.json; docs/files.md has the keys."""
        found = asdict(self)
        if self.accepted:
            found["accepted"] |= {"promise": self.accepted.promise, "fault": self.accepted.fault}
        return found


def probability_figures(facts: ImageFacts, bundle: Bundle, level: float) -> ProbabilityFigures:
    """Measure an engine's probabilities.

    Args:
        facts: with the temperature of `bundle`, finite, from logits; of at least one image.
        bundle: with its temperature and threshold.
        level: confidence of the interval, in (0, 1).
    """
    is_right = facts.engine == facts.labels
    return ProbabilityFigures(
        temperature=bundle.temperature if bundle.calibration else None,
        nll_before=float(facts.raw_nll.mean()),
        nll_after=float(facts.nll.mean()),
        ece_before=calibration_error(facts.raw_sure, is_right),
        ece_after=calibration_error(facts.sure, is_right),
        risk=_risk(facts.sure, ~is_right),
        accepted=_accepted(facts.sure, ~is_right, bundle.rejection, level) if bundle.rejection else None,
    )


def _accepted(sure: Float64Array, is_wrong: BoolArray, rejection: Rejection, level: float) -> Accepted:
    kept = sure >= rejection.threshold
    images, wrong = int(kept.sum()), int((kept & is_wrong).sum())
    low, high = rate_interval(wrong, images, level) if images else (0.0, 100.0)
    error = 100 * wrong / images if images else None
    coverage = 100 * images / len(sure)
    return Accepted(rejection.threshold, rejection.wanted_error, images, wrong, coverage, error, low, high)


def _risk(sure: Float64Array, is_wrong: BoolArray) -> tuple[tuple[float, float], ...]:
    wrong = np.cumsum(is_wrong[np.argsort(-sure, kind="stable")])
    counts = np.unique(np.ceil(_COVERAGES / 100 * len(sure)).astype(np.int64))
    return tuple((100 * count / len(sure), 100 * int(wrong[count - 1]) / count) for count in counts.tolist())
