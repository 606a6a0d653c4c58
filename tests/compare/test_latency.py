"""The latency of two networks in turns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from samdeploy.compare.latency import LatencyRatio, Times, compare_latency
from samdeploy.errors import BackendUnavailable
from samdeploy.evaluate.test_set.prepared import PreparedImages
from samdeploy.report.text import comparison
from tests.bench.conftest import Sleeper

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> Iterator[PreparedImages]:
    monkeypatch.setattr("samdeploy.bench.turns.PAUSE_S", 0.0)
    monkeypatch.setattr("samdeploy.bench.turns.TURN_MS", 5.0)
    monkeypatch.setattr("samdeploy.compare.latency.WARM_UP_LIMIT_S", 0.0)
    with PreparedImages(10, 8, 8) as images:
        images.append(IMAGES)
        yield images


def test_the_slower_one_takes_longer(prepared: PreparedImages) -> None:
    sessions = {"A": Sleeper(0.001), "B": Sleeper(0.008)}
    found = compare_latency(sessions, {"A": prepared, "B": prepared}, 11)
    assert found.low <= found.median <= found.high and found.median > 1.5
    assert (found.rounds, found.b.p50_ms >= 8) == (11, True)
    assert all(batch.shape == (1, 8, 8, 3) for batch in sessions["B"].fed)


def test_one_that_dies_is_named(prepared: PreparedImages) -> None:
    for run in (2, 40):  # in the warm-up, and in the rounds
        with pytest.raises(BackendUnavailable, match=r"B: its latency cannot be measured: .*fell off the bus$"):
            compare_latency({"A": Sleeper(0), "B": Sleeper(0.002, dies_at=run)}, {"A": prepared, "B": prepared}, 30)


def test_other_programs_are_named() -> None:
    quiet = LatencyRatio(Times(1, 1, 1), Times(1, 1, 1), 6, 1, 1, 1, 3.0)
    busy = LatencyRatio(Times(1, 1, 1), Times(1, 1, 1), 6, 1, 1, 1, 70.0)
    assert quiet.noise == "" and "waited 0.70 s per second" in busy.noise
    assert "95 % interval" in comparison._speed(quiet) and "not to be relied on" not in comparison._speed(quiet)
    assert "95 % interval" not in comparison._speed(busy) and f"not to be relied on: {busy.noise}" in comparison._speed(
        busy
    )
