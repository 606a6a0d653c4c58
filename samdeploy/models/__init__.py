"""Networks: SAM-ResNet as trained, its exact fold, and the forward pass that is exported.  Imports torch."""

from __future__ import annotations

from samdeploy.models.attention import GATES, StreamlinedAttention
from samdeploy.models.fold import FoldedResNet, fold
from samdeploy.models.graph import Exported
from samdeploy.models.pretrained import Pretrained, load_pretrained, read_pretrained
from samdeploy.models.resnet import ARCHS, SamResNet
from samdeploy.models.weights import load_weights, save_weights, state_dict_from_bytes

__all__ = [
    "ARCHS",
    "GATES",
    "Exported",
    "FoldedResNet",
    "Pretrained",
    "SamResNet",
    "StreamlinedAttention",
    "build_model",
    "fold",
    "load_pretrained",
    "load_weights",
    "read_pretrained",
    "save_weights",
    "state_dict_from_bytes",
]


def build_model(arch: str, num_classes: int, gate: str = "identity") -> SamResNet:
    """A SAM-ResNet with fresh weights, drawn from torch's global generator.

    Args:
        arch: one of `ARCHS`.
        num_classes: number of logits.
        gate: one of `GATES`.

    Raises:
        InputError: unknown architecture or gate, or num_classes below 1.
    """
    return SamResNet(arch, num_classes, gate)
