"""Expected calibration error, against its definition written out with loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from samdeploy.certainty.calibration import expected_calibration_error


def by_definition(logits: np.ndarray, labels: np.ndarray) -> float:
    """Guo et al. 2017, equations 3 to 5, one image at a time."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(15)]
    for row, label in zip(logits.astype(float), labels, strict=True):
        shares = [math.exp(value) for value in row]
        confidence = max(shares) / sum(shares)
        (place,) = [m for m in range(1, 16) if (m - 1) / 15 < confidence <= m / 15]
        bins[place - 1].append((confidence, int(row.argmax()) == label))
    total = 0.0
    for members in filter(None, bins):
        accuracy = sum(right for _, right in members) / len(members)
        confidence = sum(value for value, _ in members) / len(members)
        total += len(members) / len(labels) * abs(accuracy - confidence)
    return 100 * total


def test_the_definition() -> None:
    random = np.random.default_rng(0)
    # From sure down to less than a fifteenth.
    logits = (random.normal(0, 1, (700, 40)) * random.uniform(0, 4, (700, 1))).astype(np.float32)
    # Right in every other bin, so that bins which run together would cancel out.
    sure = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
    labels = np.where((sure * 15).astype(int) % 2, (logits.argmax(axis=1) + 1) % 40, logits.argmax(axis=1))
    assert 10 < by_definition(logits, labels) < 90
    assert expected_calibration_error(logits, labels) == pytest.approx(by_definition(logits, labels), abs=1e-4)


def test_parts_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    logits, labels = random.normal(0, 2, (50, 4)).astype(np.float32), random.integers(0, 4, 50)
    whole = expected_calibration_error(logits, labels)
    monkeypatch.setattr("samdeploy.certainty.calibration._ROWS", 7)
    assert expected_calibration_error(logits, labels) == pytest.approx(whole, abs=1e-12)


def test_sure_and_right_is_0_sure_and_wrong_100() -> None:
    # Logits so far apart that float32 exponentials would overflow.
    logits = np.array([[1e4, -1e4], [1e4, -1e4]], np.float32)
    assert expected_calibration_error(logits, np.array([0, 0])) == 0.0
    assert expected_calibration_error(logits, np.array([1, 1])) == 100.0
    assert expected_calibration_error(logits, np.array([0, 1])) == 50.0
