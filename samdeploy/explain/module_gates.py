"""Gates over images: how often the modules of a network open, shut and turn their channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.errors import BundleError

if TYPE_CHECKING:
    import onnx

# A channel is as good as shut where its gate is smaller than this share of the module's root mean square: a gate may
# have no scale of its own, since the layers around it take up any factor.
SHUT = 0.1
_GROUP = 16


@dataclass(frozen=True, slots=True)
class ModuleGates:
    """The gates of one module over a set of images.

    Attributes:
        name: of its block, such as "layer2.0".
        mean: float32 [C], mean of each channel's gate over the images.
        spread: float32 [C], standard deviation over the images: 0 where the gate is the same for every image.
    """

    name: str
    mean: Float32Array
    spread: Float32Array

    def opened(self, neutral: float) -> float:
        """Percent of the channels whose mean gate is above the neutral one."""
        return 100 * float(np.mean(self.mean > neutral))

    @property
    def shut(self) -> float:
        """Percent of the channels that hardly pass; see `SHUT`."""
        return 100 * float(np.mean(np.abs(self.mean) < SHUT * np.sqrt(np.mean(np.square(self.mean)))))

    @property
    def turned(self) -> float:
        """Percent of the channels whose sign is turned: a mean gate below 0."""
        return 100 * float(np.mean(self.mean < 0))

    def to_json(self, neutral: float) -> dict[str, Any]:
        """As in gates.json."""
        return {
            "module": self.name,
            "channels": len(self.mean),
            "opened_percent": self.opened(neutral),
            "shut_percent": self.shut,
            "turned_percent": self.turned,
            "mean": [float(value) for value in self.mean],
            "spread": [float(value) for value in self.spread],
        }


def measure_gates(
    model: onnx.ModelProto,
    tensors: Mapping[str, str],
    images: UInt8Array,
    progress: Callable[[int, str], None] | None = None,
) -> tuple[ModuleGates, ...]:
    """Run an FP32 graph with the gates of all modules as its outputs.

    Args:
        model: of role "graph" in FP32.
        tensors: module -> tensor of its gates, [N, C] or [N, C, 1, 1].
        images: uint8 [n, H, W, 3], n >= 1.

    Raises:
        BackendUnavailable: ONNX Runtime is missing, or refuses the graph.
        BundleError: a gate is not finite.
    """
    parts = list(_run(model, list(tensors.values()), images, progress))
    gates = []
    for name, found in zip(tensors, zip(*parts, strict=True), strict=True):
        values = np.concatenate(found).reshape(len(images), -1)
        if not np.isfinite(values).all():
            raise BundleError(f"{name}: gates are not finite on one of the images; the network is broken, train again")
        gates.append(ModuleGates(name, values.mean(axis=0), values.std(axis=0)))
    return tuple(gates)


def _run(
    model: onnx.ModelProto, names: list[str], images: UInt8Array, progress: Callable[[int, str], None] | None
) -> Iterable[list[Float32Array]]:
    from samdeploy.graphs.edit import with_outputs
    from samdeploy.graphs.inference import open_inference, run_inference

    inference = open_inference(with_outputs(model, names).SerializeToString())
    for start in range(0, len(images), _GROUP):
        batch = images[start : start + _GROUP]
        yield run_inference(inference, {model.graph.input[0].name: batch})
        if progress is not None:
            progress(len(batch), "")
