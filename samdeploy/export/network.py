"""The network of a run, of any family: as trained, simplified, and as an FP32 graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import nn

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.bundle.names import WEIGHTS_FILE
from samdeploy.bundle.spec import ModelSpec, model_spec
from samdeploy.errors import ExportError
from samdeploy.models import Exported, ModelFamily, build_model, family_of, load_weights
from samdeploy.runs.record import RunRecord


@dataclass(frozen=True, slots=True)
class Network:
    """A trained network on its way into a bundle.

    Attributes:
        spec: of the bundle.
        family: of its architecture.
        trained: in eval mode, as training left it.
        simple: the same function with less to compute; see `ModelFamily.simplify`.
        graph: `simple` in FP32.
    """

    spec: ModelSpec
    family: ModelFamily
    trained: nn.Module
    simple: nn.Module
    graph: onnx.ModelProto

    @torch.inference_mode()
    def answer(self, images: UInt8Array) -> Float32Array:
        """Logits float32 [N, K] of the trained network for uint8 [N, H, W, 3], RGB."""
        logits: Float32Array = Exported(self.trained, self.spec)(torch.from_numpy(images)).numpy()
        return logits

    def rescale(self, largest: Mapping[str, float]) -> tuple[onnx.ModelProto, Mapping[str, int]]:
        """The FP32 graph with room for FP16, and its exponents; see `samdeploy.models.family.Rescaled`.

        Args:
            largest: absolute value of each tensor of `graph`.
        """
        if self.family.rescale is None:
            return self.graph, {}
        rescaled = self.family.rescale(self.simple, largest)
        if not rescaled.exponents:
            return self.graph, {}
        return self.family.to_onnx(rescaled.model, self.spec), rescaled.exponents


def prepare_network(model: nn.Module, spec: ModelSpec) -> Network:
    """Simplify a trained network and write its graph; it is left in eval mode.

    Raises:
        ExportError: the graph cannot be written.
    """
    family = family_of(spec.arch)
    simple = family.simplify(model.eval())
    return Network(spec, family, model, simple, family.to_onnx(simple, spec))


def network_of_run(run_dir: Path, record: RunRecord) -> Network:
    """The network that a run trained; see `prepare_network`.

    Raises:
        WeightsError: the run's weights are missing, damaged or another architecture's.
        ExportError: a weight is not finite, or the graph cannot be written.
    """
    model = build_model(record.arch, len(record.classes), record.options)
    load_weights(model, run_dir / WEIGHTS_FILE)
    if broken := next((name for name, value in model.state_dict().items() if not value.isfinite().all()), None):
        raise ExportError(f"{run_dir}: the trained network's own weights are not finite ({broken}); train again")
    spec = model_spec(record.arch, record.options, record.classes, record.preprocessing, record.license)
    return prepare_network(model, spec)
