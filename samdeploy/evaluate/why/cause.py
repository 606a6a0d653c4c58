"""What is likely behind a tensor that departs, where its values tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from samdeploy.arrays import Float32Array
from samdeploy.backends.reference import NetworkTensors
from samdeploy.bundle.spec import ModelSpec
from samdeploy.evaluate.why.pixels import normalisation_fault
from samdeploy.evaluate.why.tensors import FP16_MAX, TensorRow, error_share

# Steps that only bring the pixels into the network's layout.
_MOVES = ("Cast", "Transpose")
# An error that grows by no more than this from the inputs to a tensor is carried along, not made there.
_CARRIED = 4.0
# Smallest share of an int8 tensor's values at the end of its range that speaks of clipping.
_CLIPPED = 1e-4


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known about an engine that fails.

    Attributes:
        spec: classes, and the normalisation that the bundle states.
        precision: of the engine.
        tolerance: error of a tensor that the precision explains.
        reference: of the network.
        found: of the engine, name -> float32 [n, ...].
        rows: the comparison of each.
        engine_error: error of the logits of the engine without tensors as outputs.
    """

    spec: ModelSpec
    precision: str
    tolerance: float
    reference: NetworkTensors
    found: Mapping[str, Float32Array]
    rows: Sequence[TensorRow]
    engine_error: float


def likely_cause(evidence: Evidence, first: TensorRow | None) -> str:
    """In words, what makes `first` the first tensor that departs; None: none does."""
    if first is None:
        return _nothing_departs(evidence)
    if first.not_finite:
        return _not_finite(evidence, first)
    if first.name in evidence.reference.normalisation:
        return _pixels(evidence, first)
    if first.name == evidence.spec.output.name:
        permuted = _permutation(evidence)
        if permuted:
            return permuted
    if first.inputs_error > 0 and first.error <= _CARRIED * first.inputs_error:
        return (
            f"no step is wrong by itself: the error grows from one to the next, and is {first.inputs_error:.1e} in the "
            f"inputs already; {evidence.precision} is too coarse for this network"
        )
    if evidence.precision == "int8":
        clipped = _clipped(evidence, first)
        if clipped:
            return clipped
    return _own_fault(evidence, first)


def _nothing_departs(evidence: Evidence) -> str:
    if not evidence.engine_error <= evidence.tolerance:
        return (
            "with its tensors as outputs the engine is right, without it is wrong: the fault is made where the runtime "
            "fuses or reorders steps; try another version of the runtime, and report it there"
        )
    grown = [row for row in evidence.rows if row.inputs_error > 0]
    if not grown:
        return "no tensor departs, and neither do the logits of these images"
    worst = max(grown, key=lambda row: row.error / row.inputs_error)
    return (
        f"no tensor departs by more than {evidence.tolerance:.0e} of its range, which {evidence.precision} explains; "
        f"the largest jump is at {worst.name}, from {worst.inputs_error:.1e} to {worst.error:.1e}"
    )


def _not_finite(evidence: Evidence, first: TensorRow) -> str:
    where = f"{first.not_finite:,} of its values are not finite, in {first.channels_off} of {first.channels} channels"
    inputs = "" if np.isfinite(first.inputs_error) else ", and those of its inputs neither"
    if evidence.precision == "fp16" and first.max_abs > FP16_MAX:
        return (
            f"{where}{inputs}: overflow; the network's own values go to {first.max_abs:.4g}, and FP16 ends at 65,504. "
            "Export again, which rescales, or with --precision fp32"
        )
    return f"{where}{inputs}; the network's own values go to {first.max_abs:.4g} only: a weight of this step is damaged"


def _pixels(evidence: Evidence, first: TensorRow) -> str:
    network = evidence.reference
    moved = [name for name in network.normalisation if network.steps[name].operator in _MOVES]
    pixels = network.values[moved[-1]] if moved else None
    normalised = evidence.found.get(network.normalisation[-1])
    if first.name in moved or pixels is None or normalised is None or normalised.shape != pixels.shape:
        return "the pixels themselves: the engine reads another layout than [N, H, W, 3]"
    return normalisation_fault(pixels, normalised, evidence.spec.preprocessing, evidence.tolerance)


def _permutation(evidence: Evidence) -> str | None:
    """Whether the logits are the network's in another order of the classes."""
    name = evidence.spec.output.name
    found, expected = (values[name].astype(np.float64) for values in (evidence.found, evidence.reference.values))
    if found.shape != expected.shape:
        return None
    distances = np.abs(found[:, :, None] - expected[:, None, :]).max(axis=0)  # [found column, class]
    order = distances.argmin(axis=1)
    if len(set(order.tolist())) < len(order) or (order == np.arange(len(order))).all():
        return None
    error = error_share(found.astype(np.float32), expected[:, order].astype(np.float32))
    if error > evidence.tolerance or error > 0.1 * error_share(found.astype(np.float32), expected.astype(np.float32)):
        return None
    classes = evidence.spec.classes
    moved = [index for index in range(len(order)) if order[index] != index]
    shown = ", ".join(f"{classes[order[index]]!r} in the column of {classes[index]!r}" for index in moved[:4])
    more = f" and {len(moved) - 4} more" if len(moved) > 4 else ""
    return (
        f"the classes are in another order: {shown}{more}. In that order the logits are right, so head and list of "
        "classes do not belong together"
    )


def _clipped(evidence: Evidence, first: TensorRow) -> str | None:
    """Whether the quantiser's range is too small for these images."""
    found, expected = evidence.found[first.name], evidence.reference.values[first.name]
    top, bottom = found.max(), found.min()
    outside = (expected > top + 0.1 * (top - bottom)) | (expected < bottom - 0.1 * (top - bottom))
    share = float(outside.mean())
    if share < _CLIPPED:
        return None
    return (
        f"the range of int8: {100 * share:.2g} % of its values lie beyond the {bottom:.4g} to {top:.4g} that the "
        f"quantiser was calibrated for, and are cut off (the network's largest is {first.max_abs:.4g}); calibrate on "
        "images like these"
    )


def _fused(evidence: Evidence, first: TensorRow) -> str | None:
    """The layer whose activation `first` is, where the engine computes both in one step and lets only this one out."""
    steps = evidence.reference.steps
    inputs = steps[first.name].inputs
    is_hidden = len(inputs) == 1 and inputs[0] in steps and inputs[0] not in evidence.found
    return inputs[0] if is_hidden and steps[inputs[0]].has_weights else None


def _own_fault(evidence: Evidence, first: TensorRow) -> str:
    step = _fused(evidence, first) or first.name
    inputs = f"its inputs are right (error {first.inputs_error:.1e})" if first.inputs else "it has no inputs"
    where = f"{first.channels_off} of {first.channels} channels"
    if evidence.reference.steps[step].has_weights:
        layer = "head" if step == evidence.spec.output.name else step
        return (
            f"{inputs}, so it is this step: the weights or the bias of {layer!r} in the engine are not the trained "
            f"ones, in {where}; or the runtime computes it wrongly"
        )
    return (
        f"{inputs}, and this step has no weights: the runtime computes it wrongly, or the graph has a step too many or "
        f"too few there, in {where}"
    )
