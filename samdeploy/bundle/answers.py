"""What an export found out about a network's probabilities, for applications that act on them."""

# Annotations are types and not texts here: the reader looks at them, and that is quicker.

from dataclasses import dataclass, field

from samdeploy.bundle.annotations import Rules
from samdeploy.errors import BundleError

_PERCENT = Rules(at_least=0, at_most=100)
_COUNT = Rules(at_least=1)
_NATS = Rules(at_least=0)
CONFIDENCE_BINS = 10


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
class Answered:
    """What validation images were answered with, so that a server sees when its images are of another kind.

    Attributes:
        labels: images that were given each class, in the order of the classes.
        confidence: images by the highest probability, with the bundle's temperature: in [0, 0.1), ..., [0.9, 1].
    """

    labels: tuple[int, ...]
    confidence: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.confidence) != CONFIDENCE_BINS:
            raise BundleError(f"answered.confidence: {len(self.confidence)} found, {CONFIDENCE_BINS} numbers expected")
        if min(self.labels, default=0) < 0 or min(self.confidence) < 0:
            raise BundleError("answered: a count is below 0")
        if sum(self.labels) != sum(self.confidence) or not sum(self.labels):
            raise BundleError(
                f"answered: {sum(self.labels)} images by class and {sum(self.confidence)} by confidence found, the "
                "same number above 0 expected"
            )


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
