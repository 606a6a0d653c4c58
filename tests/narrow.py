"""A network for tests whose subject is not the network: trained, exported and evaluated in a fifth of the time."""

from __future__ import annotations

from pytest import MonkeyPatch

# What `digits_run` has, but for the network; it learns the digits as well, in more steps.
SETTINGS = ("training.epochs=3", "training.batch_size=32", "training.device=cpu", "training.precision=fp32")
SETTINGS += ("data.val_fraction=0.5", "training.learning_rate=3e-3")


def make_narrow(patch: MonkeyPatch) -> None:
    """SAM-ResNet-18 has all its layers and a quarter of its channels, in this process alone; no curves are drawn."""
    from samdeploy.models.sam_resnet import resnet
    from samdeploy.train.watch import curves

    patch.setattr(curves, "draw_curves", lambda *_: None)
    patch.setattr(resnet, "WIDTHS", (16, 32, 64, 128))
