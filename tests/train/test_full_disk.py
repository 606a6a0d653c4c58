"""A disk that is full: said before training, and nothing lost in the middle of it."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from samdeploy.errors import SamdeployError, TrainingError
from samdeploy.runs.record import open_run
from samdeploy.train.checkpoints import saver
from samdeploy.train.checkpoints.checkpoint import read_checkpoint
from samdeploy.train.loop import epoch as epoch_file
from samdeploy.train.loop import train as loop
from samdeploy.train.recipe.recipe import Recipe

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_network")]

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB of its own; about 6 MB are needed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_last_checkpoint(
    small_disk: Path, everything: Recipe, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver.Saver, "due", lambda self, epoch_end: epoch_end)
    learning_rate = epoch_file.learning_rate

    def fill(training: object, step: int, steps: int) -> float:
        # The first of the second epoch: the checkpoint of the first lies there.
        if step == steps and not (small_disk / "other").exists():
            free = shutil.disk_usage(small_disk).free
            (small_disk / "other").write_bytes(bytes(free - 320_000))
        return learning_rate(training, step, steps)  # type: ignore[arg-type]

    monkeypatch.setattr(epoch_file, "learning_rate", fill)
    with pytest.raises(TrainingError) as caught:
        loop.train(everything, runs_root=small_disk / "runs")
    run = next((small_disk / "runs").iterdir())
    message = str(caught.value)
    assert f"{run}" in message
    assert "No space left on device" in message
    assert f"go on with: samdeploy train --resume {run}" in message
    assert read_checkpoint(run / "checkpoints", print).facts["epoch"] == 2
    # What could not be written is not called the best.
    best = open_run(run).best_epoch
    assert f"The best weights (epoch {best}, " in message
    assert (run / "checkpoints" / f"best-{best}.safetensors").read_bytes() == (run / "weights.safetensors").read_bytes()
    (small_disk / "other").unlink()
    monkeypatch.setattr(epoch_file, "learning_rate", learning_rate)
    loop.resume(run)
    assert (run / "weights.safetensors").read_bytes() == (undisturbed / "weights.safetensors").read_bytes()


def test_files_that_may_not_become_large_enough(tmp_path: Path, recipe: MakeRecipe) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saver.resource, "getrlimit", lambda _: (500_000, -1))
        text = r"files may have up to 0\.5 MB here, but a checkpoint of this network takes up to .* MB; lift the limit"
        with pytest.raises(SamdeployError, match=text):
            loop.train(recipe(), runs_root=tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EFBIG, "lift the limit"), (errno.EDQUOT, "quota"), (errno.ENOSPC, "Make room"), (errno.EIO, "See to")],
)
def test_what_helps_depends_on_what_is_wrong(number: int, words: str) -> None:
    assert words in saver.room_cure(OSError(number, "no"))


def test_a_first_file_that_cannot_be_written(
    tmp_path: Path, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EFBIG, "File too large", "hashes.npz")

    monkeypatch.setattr(loop, "write_hashes", refuse)
    with pytest.raises(TrainingError) as caught:
        loop.train(recipe(), runs_root=tmp_path / "runs")
    assert str(caught.value).startswith("hashes.npz: could not be written (File too large). Files here may not")
    assert "untouched" not in str(caught.value)


def test_too_little_room_is_said_before_training(tmp_path: Path, recipe: MakeRecipe) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saver.shutil, "disk_usage", lambda _: usage)
        with pytest.raises(
            SamdeployError, match="1 MB are free, but weights and checkpoints of this network take up to"
        ):
            loop.train(recipe(), runs_root=tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []
