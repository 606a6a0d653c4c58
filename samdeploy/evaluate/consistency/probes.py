"""Whether an engine answers probe images as the trained network does: colours and patterns that no test image shows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samdeploy.arrays import Float32Array, Float64Array, UInt8Array
from samdeploy.backends.channels import CHANNELS_FLOOR, CHANNELS_RATIO, Twins, channel_twins, order_read
from samdeploy.backends.difference import difference_shares
from samdeploy.backends.int8 import int8_reference
from samdeploy.backends.session import Session
from samdeploy.bundle import Bundle
from samdeploy.data.probe_images import ProbeImages, probe_images
from samdeploy.evaluate.finite_json import finite_json

# Largest difference that passes, as a share of the range of the probe's logits, or of the median test image's where
# that is larger.  INT8 is held against the network with the graph's own ranges, see `samdeploy.backends.int8`.
# Measured by benchmarks/evaluate/probe_limits.py, see docs/figures.md.
LIMITS = {"fp32": 1e-4, "fp16": 5e-2, "bf16": 2e-1, "int8": 3e-1}
# A probe explodes whose logits have so many times the median test image's range.
EXPLODES = 10.0
# The same for exploding probes; precisions that are not here cannot be judged on them.  Without squashing, each gate
# squares large values and doubles their rounding error; by the end of float32 an error of 1e-7 has grown to about 1e-4.
EXPLODING_LIMITS = {"fp32": 1e-2}


@dataclass(frozen=True, slots=True)
class ProbeReference:
    """What the trained network answers to the probes.

    Attributes:
        probes: the images with their names.
        logits: float32 [n, K], not always finite.
        typical: the median range of the network's logits on the test images.
    """

    probes: ProbeImages
    logits: Float32Array
    typical: float


@dataclass(frozen=True, slots=True)
class ProbeAnswers:
    """How an engine answered the probes.

    Attributes:
        images: how many there are.
        left_out: names of those whose reference is not finite, or explodes beyond what the precision can follow.
        worst: of the others, the difference that is closest to its limit or furthest above, as a share; infinite where
            an answer is not finite.
        worst_image: its name; "" where all were left out.
        allowed: its limit.
        wrong: names of the images that differ by more than their limits.
        order: the order of channels that explains all answers, such as "BGR"; "" where none does.
        blind: orders of channels that the network itself does not tell from RGB.
        from_graph: the expected answers depend on the engine's own graph (INT8), so it must not excuse all of them.
    """

    images: int
    left_out: tuple[str, ...]
    worst: float
    worst_image: str
    allowed: float
    wrong: tuple[str, ...] = ()
    order: str = ""
    blind: tuple[str, ...] = ()
    from_graph: bool = False

    @property
    def fault(self) -> str:
        """What is wrong, with the worst image's name; "" where nothing is."""
        if self.images == len(self.left_out) and self.from_graph:
            return "probe images: in the ranges of its own graph the network answers none of them"
        if not self.wrong and not self.order:
            return ""
        off = f"off by {self.worst:.1e} of their range" if math.isfinite(self.worst) else "not finite"
        text = f"answers for {self.worst_image} are {off}"
        if self.order:
            return f"channels: the engine reads {self.order} for RGB; {text}"
        tried = self.images - len(self.left_out)
        return f"probe images: {text}, at most {self.allowed:.0e} allowed; {len(self.wrong)} of {tried} are wrong"

    @property
    def summary(self) -> str:
        """In one line."""
        tried = self.images - len(self.left_out)
        if not tried:
            return f"probe images: the network's own answers explode for all {self.images}"
        text = f"{tried} probe images within {self.worst:.1e} of the range ({self.worst_image})"
        if self.left_out:
            text += f"; {len(self.left_out)} left out, where the network's own answers explode"
        if self.blind:
            text += f"; the network hardly looks at colour: channels as {', '.join(self.blind)} would not be noticed"
        return text

    def to_json(self) -> dict[str, Any]:
        """As documented in docs/files.md."""
        return {**finite_json(self), "passed": not self.fault}


def probe_reference(session: Session, golden: UInt8Array, spread: Float64Array) -> ProbeReference:
    """Ask the trained network.

    Args:
        session: the trained network.
        golden: uint8 [n, H, W, 3], real images, n >= 1.
        spread: float64 [N], largest minus smallest logit of the network on the test images.
    """
    probes = probe_images(golden)
    return ProbeReference(probes, session.run(probes.images), float(np.median(spread)))


def compare_probes(session: Session, bundle: Bundle, reference: ProbeReference) -> ProbeAnswers:
    """Ask an engine.

    Raises:
        SamdeployError: INT8 only: the graph's ranges cannot be read, so there is nothing to compare with.
        Exception: whatever the engine raises.
    """
    expected = reference.logits
    if session.precision == "int8":
        expected = int8_reference(bundle, session.backend, reference.probes.images)
    found = session.run(reference.probes.images)
    return judge_answers(found, expected, reference.probes, reference.typical, session.precision)


def judge_answers(
    found: Float32Array, expected: Float32Array, probes: ProbeImages, typical: float, precision: str
) -> ProbeAnswers:
    """Compare answers float32 [n, K] with the expected ones; see `ProbeReference` and `ProbeAnswers`."""
    with np.errstate(invalid="ignore"):
        ranges = np.ptp(expected.astype(np.float64), axis=1)
    scale = np.maximum(ranges, typical or 1.0)
    explodes = ranges > EXPLODES * typical if typical > 0 else np.zeros(len(ranges), np.bool_)
    limits = np.where(explodes, EXPLODING_LIMITS.get(precision, math.inf), LIMITS[precision])
    usable = np.isfinite(ranges) & np.isfinite(limits)
    shares = np.zeros(len(expected))
    shares[usable] = difference_shares(found[usable], expected[usable], scale[usable])
    wrong = shares > limits
    twins = channel_twins(probes.images, usable & ~explodes & np.isfinite(found).all(axis=1))
    order = order_read(found, expected, scale, twins)
    worst = int((shares / limits).argmax())
    limit = LIMITS[precision]
    return ProbeAnswers(
        images=len(expected),
        left_out=_names(probes, ~usable),
        worst=float(shares[worst]),
        worst_image=probes.names[worst] if usable.any() else "",
        allowed=float(limits[worst]) if usable.any() else limit,
        wrong=_names(probes, wrong),
        order=order,
        blind=() if order else tuple(_blind(found, expected, scale, twins, limit)),
        from_graph=precision == "int8",
    )


def _names(probes: ProbeImages, chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(name for name, keep in zip(probes.names, chosen, strict=True) if keep)


def _blind(
    found: Float32Array, expected: Float32Array, scale: Float64Array, twins: Sequence[Twins], limit: float
) -> Iterator[str]:
    """Orders of channels that would not be noticed, neither at a single image nor at all twins together."""
    for pairs in twins:
        scales = np.maximum(scale[pairs.own], scale[pairs.other])
        apart = difference_shares(expected[pairs.own], expected[pairs.other], scales)
        error = pairs.mean_share(found, expected, scale, "own")
        needed = max(CHANNELS_FLOOR, (1 + CHANNELS_RATIO) / CHANNELS_RATIO * 2 * error)
        if apart.max() <= 2 * limit and apart.mean() <= needed:
            yield pairs.order
