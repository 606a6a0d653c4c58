"""Why an engine does not answer as the network: which tensor is the first to depart, in the graph's order.

The trained network's graph, written anew from its weights, computes every tensor node by node; the engine's graph
computes the same in the engine's own runtime, with its intermediate tensors as outputs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from samdeploy.arrays import Float32Array, Float64Array, Int64Array, UInt8Array
from samdeploy.backends import open_session
from samdeploy.backends.difference import difference_shares, image_ranges
from samdeploy.backends.golden import GOLDEN_TOLERANCE
from samdeploy.backends.reference import NetworkTensors, reference_tensors
from samdeploy.backends.tensors import EngineTensors, engine_tensors
from samdeploy.bundle import Bundle
from samdeploy.bundle.spec import ModelSpec
from samdeploy.errors import SamdeployError
from samdeploy.evaluate.why.cause import Evidence, likely_cause
from samdeploy.evaluate.why.tensors import TensorRow, compare_tensors, error_share

# Images that are looked at: all tensors of the network are held for each.
IMAGES = 4
# Tensors before and after the first that departs, in tables and JSON.
_AROUND = 4

# Largest error of a tensor, as a share of its range, that the arithmetic alone explains: the same as for the logits.
# Honest engines of SAM-ResNet-18 on the digits, largest over all tensors: fp32 1.7e-6 (OpenVINO), bf16 2.3e-2
# (OpenVINO), int8 8.5e-2 (ONNX Runtime).
TOLERANCE = GOLDEN_TOLERANCE


@dataclass(frozen=True, slots=True)
class Why:
    """What the comparison of all tensors found.

    Attributes:
        backend, precision, device: the engine.
        n_images: images that were looked at.
        tolerance: error of a tensor that its precision explains, as a share of its range.
        engine_error: error of the logits of the engine as it is, without tensors as outputs; infinite if not finite.
        rows: every tensor that network and engine have in common, in the graph's order.
        first: index of the first row that departs; None where none does.
        cause: what is likely behind it, in a sentence or two.
    """

    backend: str
    precision: str
    device: str
    n_images: int
    tolerance: float
    engine_error: float
    rows: tuple[TensorRow, ...]
    first: int | None
    cause: str

    @property
    def name(self) -> str | None:
        """The first tensor that departs."""
        return None if self.first is None else self.rows[self.first].name

    def around(self) -> tuple[TensorRow, ...]:
        """The rows around the first that departs; the last ones where none does."""
        middle = len(self.rows) - 1 if self.first is None else self.first
        return self.rows[max(0, middle - _AROUND) : middle + _AROUND + 1]

    def to_json(self) -> dict[str, Any]:
        """As in eval.json; see docs/files.md."""
        return {
            "first": self.name,
            "cause": self.cause,
            "n_images": self.n_images,
            "n_tensors": len(self.rows),
            "tolerance": self.tolerance,
            "engine_error": self.engine_error if math.isfinite(self.engine_error) else None,
            "tensors": [row.to_json() for row in self.around()],
        }


def explain_failure(bundle: Bundle, backend: str, precision: str, images: UInt8Array, *, device: str = "auto") -> Why:
    """Compare all tensors of an engine's graph with those of the trained network.

    Args:
        bundle: from `open_bundle`.
        backend: "onnxruntime" or "openvino"; TensorRT's engines do not let their tensors out.
        precision: as for `open_session`.
        images: uint8 [n, H, W, 3], RGB, a few images that the engine answers wrongly; see `worst_images`.
        device: "cpu", "cuda" or "auto".

    Raises:
        BackendUnavailable: the runtime cannot run the graph here, or lets no tensors out.
        BundleError, WeightsError: a file of the bundle was changed.
        InputError: unknown names, or images of another shape.
    """
    reference = reference_tensors(bundle, images)
    found = engine_tensors(bundle, backend, precision, images, reference.values, device=device)
    with open_session(bundle, backend, device=device, precision=precision, check=False) as session:
        answers = session.run(images)
    stored = _exponents(bundle) if found.graph_precision == "fp16" else {}
    return explain_tensors(bundle.spec, reference, found, answers, stored)


def explain_if_possible(bundle: Bundle, backend: str, precision: str, images: UInt8Array, *, device: str) -> Why:
    """`explain_failure`, whose cause is the reason where the engine's tensors cannot be had."""
    try:
        return explain_failure(bundle, backend, precision, images, device=device)
    except SamdeployError as error:
        cause = f"cannot be found here: {error}"
        return Why(backend, precision, device, len(images), TOLERANCE[precision], math.inf, (), None, cause)


def explain_tensors(
    spec: ModelSpec,
    reference: NetworkTensors,
    found: EngineTensors,
    answers: Float32Array,
    stored: Mapping[str, int],
) -> Why:
    """`explain_failure` where all tensors are at hand.

    Args:
        reference: of the trained network.
        found: of the engine.
        answers: float32 [n, K], the logits of the engine without tensors as outputs.
        stored: name -> k, where the graph stores a tensor times 2**-k.
    """
    values = {name: np.ldexp(value, stored.get(name, 0)) for name, value in found.values.items()}
    rows = compare_tensors(reference.values, values, found.sources, stored)
    tolerance = TOLERANCE[found.precision]
    first = next((index for index, row in enumerate(rows) if not row.error <= tolerance), None)
    engine_error = error_share(answers, reference.values[spec.output.name])
    evidence = Evidence(
        spec=spec,
        precision=found.precision,
        tolerance=tolerance,
        reference=reference,
        found=values,
        rows=rows,
        engine_error=engine_error,
    )
    cause = likely_cause(evidence, None if first is None else rows[first])
    return Why(found.backend, found.precision, found.device, len(answers), tolerance, engine_error, rows, first, cause)


def worst_images(logits: Float32Array, reference: Float32Array, count: int = IMAGES, *, allowed: int = 0) -> Int64Array:
    """Indices of the images that an engine answers worst, int64 [at most `count`], in their order.

    Args:
        logits, reference: float32 [N, K].
        allowed: so many of the worst are left out: they may be answered otherwise.
    """
    return worst_of(difference_shares(logits, reference, image_ranges(reference)), count, allowed=allowed)


def worst_of(shares: Float64Array, count: int = IMAGES, *, allowed: int = 0) -> Int64Array:
    """`worst_images` by their `difference_shares`, float64 [N]."""
    worst = np.argsort(-shares, kind="stable")[allowed : allowed + count]
    return np.sort(worst).astype(np.int64)


def _exponents(bundle: Bundle) -> dict[str, int]:
    """Of the FP16 graph: tensor -> k, where it is stored times 2**-k."""
    file = bundle.find("headroom")
    if file is None:
        return {}
    tensors = json.loads(bundle.read(file))["tensors"]
    return {row["name"]: int(row["stored_as_times_two_to_minus"]) for row in tensors}
