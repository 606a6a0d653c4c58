"""The temperature is the planted one, and is not fitted where the images say nothing about it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from samdeploy.bundle.answers import Calibration
from samdeploy.certainty.calibration import mean_nll
from samdeploy.export.temperature import fit_temperature


def answers(temperature: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that are drawn from their softmax at `temperature`."""
    random = np.random.default_rng(3)
    logits = random.normal(0, 3, (count, 7)).astype(np.float32)
    shares = np.exp(logits / temperature)
    drawn = random.random((count, 1)) * shares.sum(axis=1, keepdims=True)
    return logits, (shares.cumsum(axis=1) < drawn).sum(axis=1)


@pytest.mark.parametrize("planted", [0.5, 1.0, 2.5])
def test_planted_temperature_is_found(planted: float) -> None:
    logits, labels = answers(planted, 20_000)
    found = fit_temperature(logits, labels)
    assert isinstance(found, Calibration)
    assert found.temperature == pytest.approx(planted, rel=0.04)
    assert found.images == 20_000
    assert found.nll_after <= found.nll_before == pytest.approx(mean_nll(logits, labels))
    for near in (0.99, 1.01):
        assert mean_nll(logits, labels, near * found.temperature) > found.nll_after
    if planted != 1:
        assert found.ece_after < 2 < found.ece_before


def test_likelihood_is_that_of_the_definition() -> None:
    logits, labels = answers(1.5, 50)
    own = [
        row[label] / 1.5 - math.log(sum(math.exp(v / 1.5) for v in row))
        for row, label in zip(logits, labels, strict=True)
    ]
    assert mean_nll(logits, labels, 1.5) == pytest.approx(-sum(own) / 50, rel=1e-6)


def test_why_there_is_none() -> None:
    logits, labels = answers(1.0, 500)
    assert fit_temperature(logits[:99], labels[:99]) == "99 validation images are too few, at least 100 are needed"
    assert "all 500 validation images are answered rightly" in str(fit_temperature(logits, logits.argmax(axis=1)))
    chance = np.random.default_rng(0).integers(0, 7, 500)
    opposite = logits.argmin(axis=1)
    assert fit_temperature(logits, opposite) == "no temperature from 0.05 to 20 fits the validation images"
    found = fit_temperature(logits, chance)
    assert not isinstance(found, Calibration) or found.temperature > 5
