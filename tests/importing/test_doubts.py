"""Another preparation that fits labelled images clearly better."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from samdeploy.bundle.spec import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Preprocessing, model_spec
from samdeploy.importing import doubts
from samdeploy.importing.doubts import doubt, logits_of, right_ones
from samdeploy.metrics import is_chance

HALF = (0.5, 0.5, 0.5)


class RedOrBlue(nn.Module):
    """Logits [N, 2]: mean red minus `threshold`, and mean blue minus it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))[:, (0, 2)]


class BrightOrDark(nn.Module):
    """Logits [N, 2]: whether the mean of the normalised image is above 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(dim=(1, 2, 3))
        return torch.stack([mean, -mean], 1)


def spec(mean: tuple[float, float, float], std: tuple[float, float, float]):
    return model_spec("onnx:none", {}, ("one", "two"), Preprocessing(4, 4, mean=mean, std=std))


def better_preparation(model: nn.Module, spec: ModelSpec, pixels: np.ndarray, labels: np.ndarray):
    return doubts.better_preparation(model, spec, pixels, labels, right_ones(logits_of(model, spec, pixels), labels))


def images(levels: np.ndarray) -> np.ndarray:
    """uint8 [N, 4, 4, 3] of one colour each."""
    return np.broadcast_to(levels[:, None, None, :], (len(levels), 4, 4, 3)).astype(np.uint8)


def test_exchanged_channels_are_named() -> None:
    labels = np.arange(40) % 2
    colours = np.where(labels[:, None] == 0, [200, 100, 50], [50, 100, 200])
    assert better_preparation(RedOrBlue(), spec(HALF, HALF), images(colours), labels) is None
    found = better_preparation(RedOrBlue(), spec(HALF, HALF), images(colours[:, ::-1]), labels)
    assert found is not None
    assert found[0] == 40 and "BGR" in found[1] and "40 instead of 0 of 40 are right" in found[1]
    none = np.zeros(40, bool)
    assert doubt(RedOrBlue(), spec(HALF, HALF), images(colours[:, ::-1]), labels, none, look=True) == found[1]


def test_the_normalisation_that_fits_is_named() -> None:
    labels = np.arange(60) % 2
    # Between the means 0.449 and 0.5: dark for the one, bright for the other.
    grey = np.where(labels == 0, 200, 121)
    colours = np.repeat(grey[:, None], 3, axis=1)
    assert better_preparation(BrightOrDark(), spec(HALF, HALF), images(colours), labels) is None
    found = better_preparation(BrightOrDark(), spec(IMAGENET_MEAN, IMAGENET_STD), images(colours), labels)
    assert found is not None and "--mean 0.5,0.5,0.5 --std 0.5,0.5,0.5" in found[1]


def test_a_difference_that_chance_explains_is_not_named() -> None:
    labels = np.array([0] * 20 + [1] * 20)
    grey = np.where(labels == 0, 200, 100)
    grey[36:] = 121  # four images, which another normalisation would get right
    colours = np.repeat(grey[:, None], 3, axis=1)
    assert better_preparation(BrightOrDark(), spec(IMAGENET_MEAN, IMAGENET_STD), images(colours), labels) is None


def test_names_in_another_order() -> None:
    """Each preparation is as bad."""
    labels = np.arange(60) % 2
    colours = np.repeat(np.where(labels == 0, 20, 240)[:, None], 3, axis=1)
    for look in (True, False):
        found = doubt(BrightOrDark(), spec(HALF, HALF), images(colours), labels, np.zeros(60, bool), look=look)
        assert found == "no better than chance: are the class names in the network's order?"
    assert doubt(BrightOrDark(), spec(HALF, HALF), images(colours), 1 - labels, np.ones(60, bool), look=False) is None


def test_chance_is_told_from_few_images() -> None:
    for correct, total, classes, expected in (
        (0, 32, 3, True), (12, 32, 3, True), (20, 32, 3, False), (32, 32, 1, False),
        (0, 32, 1000, True), (1, 32, 1000, False), (1, 2, 2, False), (0, 6, 3, True),
    ):  # fmt: skip
        assert is_chance(correct, total, classes) is expected, (correct, total, classes)
