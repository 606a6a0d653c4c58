"""A best epoch's weights that were damaged or lost while a training was stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from samdeploy.errors import WeightsError
from samdeploy.train.loop import train as loop

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_network")]


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # it may be a link to the run's own weights
    path.write_bytes(content)


@pytest.mark.parametrize("lost", [spoil, Path.unlink], ids=["spoilt", "gone"])
def test_the_runs_own_weights_stand_in(
    stopped: Path, undisturbed: Path, lost: object, capsys: pytest.CaptureFixture[str]
) -> None:
    (best,) = (stopped / "checkpoints").glob("best-*.safetensors")
    lost(best)  # type: ignore[operator]
    loop.resume(stopped)
    assert f"taken from {stopped / 'weights.safetensors'}, which holds the same weights" in capsys.readouterr().err
    assert (stopped / "weights.safetensors").read_bytes() == (undisturbed / "weights.safetensors").read_bytes()


def test_weights_of_another_epoch_do_not_stand_in(stopped: Path) -> None:
    (best,) = (stopped / "checkpoints").glob("best-*.safetensors")
    spoil(best)
    facts = json.loads((stopped / "run.json").read_text())
    facts["best_epoch"] += 1  # an epoch after the checkpoint was better, and was killed before the next one
    (stopped / "run.json").write_text(json.dumps(facts))
    with pytest.raises(WeightsError, match="no other copy; put the file back, or train anew"):
        loop.resume(stopped)


def test_without_a_copy_nothing_is_begun(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (best,) = (stopped / "checkpoints").glob("best-*.safetensors")
    spoil(best)
    spoil(stopped / "weights.safetensors")
    before = (stopped / "weights.safetensors").read_bytes()
    with pytest.raises(
        WeightsError, match=r"best-1\.safetensors: .*damaged.* no other copy; put the file back, or train"
    ):
        loop.resume(stopped)
    assert (stopped / "weights.safetensors").read_bytes() == before
    assert "are kept" not in capsys.readouterr().err
