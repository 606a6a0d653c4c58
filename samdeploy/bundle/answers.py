"""What an export found out about a network's probabilities, for applications that act on them."""

# Annotations are types and not texts here: the reader looks at them, and that is quicker.

from dataclasses import dataclass, field

from samdeploy.bundle.annotations import Rules

_PERCENT = Rules(at_least=0, at_most=100)
_COUNT = Rules(at_least=1)
_NATS = Rules(at_least=0)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The temperature of the probabilities; see `samdeploy.certainty.calibration`.

    Attributes:
        temperature: logits are divided by it before the softmax.
        images: of the validation split, on which it was fitted.
        nll_before, nll_after: mean negative log-likelihood on them, in nats, with 1 and with the temperature.
        ece_before, ece_after: expected calibration error on them, in percentage points.
    """

    temperature: float = field(metadata=Rules(above=0))
    images: int = field(metadata=_COUNT)
    nll_before: float = field(metadata=_NATS)
    nll_after: float = field(metadata=_NATS)
    ece_before: float = field(metadata=_PERCENT)
    ece_after: float = field(metadata=_PERCENT)


@dataclass(frozen=True, slots=True)
class Rejection:
    """Which answers are rejected: those whose highest probability is below `threshold`.

    Attributes:
        threshold: in [0, 1], of the probability with the bundle's temperature.
        wanted_error: percentage of wrong ones among accepted answers that was allowed.
        bound: of that percentage at the threshold, upper, one-sided with 95 % confidence.
        coverage: percentage of the images that were accepted.
        images: of the validation split, on which bound and coverage were measured.
    """

    threshold: float = field(metadata=Rules(at_least=0, at_most=1))
    wanted_error: float = field(metadata=Rules(above=0, below=100))
    bound: float = field(metadata=_PERCENT)
    coverage: float = field(metadata=_PERCENT)
    images: int = field(metadata=_COUNT)
