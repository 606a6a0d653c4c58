"""Fresh networks by name."""

from __future__ import annotations

from samdeploy.models.sam_resnet.resnet import SamResNet


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
