"""Trainings that are stopped and gone on with: really killed, really out of disk, and equal to the last bit."""

from __future__ import annotations

import csv
import errno
import io
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from samdeploy.errors import DatasetError, InputError, RecipeError, SamdeployError, TrainingError, WeightsError
from samdeploy.run import open_run
from samdeploy.train import epoch as epoch_file
from samdeploy.train import loop
from samdeploy.train.checkpoints import saver
from samdeploy.train.checkpoints.checkpoint import read_checkpoint
from samdeploy.train.checkpoints.resume import find_run, unfinished_runs
from samdeploy.train.recipe import Recipe, dump_recipe
from samdeploy.train.run_folder import RunFolder
from tests.train.started import Started
from tests.train.stopping import stopping

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_network")]

MakeRecipe = Callable[..., Recipe]

# Everything that has a state of its own: mean, pieces, augmentation with chance, warm-up and cosine, weight decay.
EVERYTHING = (
    "epochs=3",
    "ema_decay=0.9",
    "accumulate=2",
    "augment.flip=true",
    "augment.crop_padding=2",
    "schedule=cosine",
    "warmup_epochs=1",
    "weight_decay=0.1",
    "clip_norm=1",
    "patience=0",
)


def history(run: Path) -> list[dict[str, str]]:
    """history.csv without the columns that no two runs share."""
    with (run / "history.csv").open(newline="") as file:
        rows = [dict(row) for row in csv.DictReader(file)]
    return [{key: value for key, value in row.items() if key not in ("images_per_s", "seconds")} for row in rows]


@pytest.fixture(scope="module")
def everything(recipe: MakeRecipe, small_network: None) -> Recipe:
    return recipe(*EVERYTHING)


@pytest.fixture(scope="module")
def undisturbed(everything: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return loop.train(everything, runs_root=tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def stopped_once(everything: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after step 2 of 3 of its second epoch.  Copy it before going on with it."""
    root = tmp_path_factory.mktemp("stopped")
    with stopping(2, 2), pytest.raises(SystemExit):
        loop.train(everything, runs_root=root)
    return next(root.iterdir())


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped_once, tmp_path / "runs" / stopped_once.name))


@pytest.mark.parametrize(("epoch", "step"), [(1, 1), (2, 3)])
def test_going_on_gives_the_same_bytes(
    everything: Recipe, undisturbed: Path, tmp_path: Path, epoch: int, step: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with stopping(epoch, step), pytest.raises(SystemExit) as caught:
        loop.train(everything, runs_root=tmp_path)
    assert caught.value.code == 143
    run = next(tmp_path.iterdir())
    said = capsys.readouterr().err
    assert f"stopped by SIGTERM at epoch {epoch}, step {step}. " in said
    assert f"go on with: samdeploy train --resume {run}" in said
    assert unfinished_runs(tmp_path) == [run]
    facts = read_checkpoint(run / "checkpoints", print).facts
    assert (facts["epoch"], facts["step"], len(facts["rows"])) == (epoch, step, epoch - 1)
    assert loop.resume(run) == run
    assert (run / "weights.safetensors").read_bytes() == (undisturbed / "weights.safetensors").read_bytes()
    assert history(run) == history(undisturbed)
    assert (run / "gates.csv").read_bytes() == (undisturbed / "gates.csv").read_bytes()
    record = open_run(run)
    assert record.status == "complete"
    assert record.provenance["resumed"].startswith(f"epoch {epoch} step {step} on 2")
    assert not (run / "checkpoints").exists()
    assert unfinished_runs(tmp_path) == []


def test_the_state_at_the_end_is_the_same_too(
    everything: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # weights.safetensors is of the best epoch; here all tensors of the last moment are compared: moments, mean, ...
    ends = []
    monkeypatch.setattr(saver.Saver, "due", lambda self, epoch_end: epoch_end)
    monkeypatch.setattr(
        RunFolder, "complete", lambda run, test: ends.append(read_checkpoint(run.checkpoints, print).tensors)
    )
    loop.train(everything, runs_root=tmp_path / "calm")
    with stopping(2, 1), pytest.raises(SystemExit):
        loop.train(everything, runs_root=tmp_path / "stopped")
    loop.resume(next((tmp_path / "stopped").iterdir()))
    calm, resumed = ends
    assert calm.keys() == resumed.keys()
    assert len([key for key in calm if key.startswith("optimizer.")]) == 3 * 42  # weights of the small network
    for key, value in calm.items():
        assert torch.equal(value, resumed[key]), key


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_real_process(
    everything: Recipe, tmp_path: Path, undisturbed: Path, number: signal.Signals, start: Callable[..., Started]
) -> None:
    file = tmp_path / "it.toml"
    file.write_text(dump_recipe(everything))
    process = start("train", file, cwd=tmp_path)
    process.wait_until(lambda: list(tmp_path.glob("runs/*/checkpoints/last.safetensors")))  # of the first epoch's end
    process.send(number)
    sent = time.monotonic()
    code = process.wait()
    assert time.monotonic() - sent < 10
    run = next((tmp_path / "runs").iterdir())
    if number == signal.SIGKILL:
        assert code == -9
    else:
        assert code == 128 + number
        assert f"stopped by {number.name} at epoch " in process.said
        assert "Traceback" not in process.said
        assert open_run(run).status == "interrupted"
    again = start("train", "--resume", cwd=tmp_path)
    assert again.wait() == 0, again.said
    assert f"taking the newest unfinished run: {run.relative_to(tmp_path)}" in again.said
    assert again.out == f"{run.relative_to(tmp_path)}\n"
    assert (run / "weights.safetensors").read_bytes() == (undisturbed / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_closes(
    everything: Recipe, undisturbed: Path, tmp_path: Path, ignored: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGHUP saves as SIGTERM does; under nohup, which has it ignored, training goes on."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        with stopping(2, 1, signal.SIGHUP):
            if ignored:
                loop.train(everything, runs_root=tmp_path)
            else:
                with pytest.raises(SystemExit) as caught:
                    loop.train(everything, runs_root=tmp_path)
                assert caught.value.code == 129
    finally:
        signal.signal(signal.SIGHUP, before)
    run = next(tmp_path.iterdir())
    assert ("stopped by SIGHUP at epoch 2, step 1. " in capsys.readouterr().err) is not ignored
    if not ignored:
        loop.resume(run)
    assert (run / "weights.safetensors").read_bytes() == (undisturbed / "weights.safetensors").read_bytes()


class Unread(io.StringIO):
    """Standard error, whose reader goes after a line with these words."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words

    def write(self, text: str) -> int:
        if self._words in self.getvalue():
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        return super().write(text)


@pytest.mark.parametrize(("words", "kept"), [("", False), ("training sam-", False), ("2/3 ", True)])
def test_a_reader_of_the_progress_that_goes(
    everything: Recipe, undisturbed: Path, tmp_path: Path, words: str, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `2>&1 | head` does: the error is the pipe's, which the command line turns into exit code 141."""
    monkeypatch.setattr(sys, "stderr", Unread(words))
    with pytest.raises(BrokenPipeError):
        loop.train(everything, runs_root=tmp_path)
    monkeypatch.undo()
    runs = list(tmp_path.iterdir())
    assert len(runs) == kept
    if kept:
        assert open_run(runs[0]).status == "interrupted"
        loop.resume(runs[0])
        assert (runs[0] / "weights.safetensors").read_bytes() == (undisturbed / "weights.safetensors").read_bytes()


# --- what is refused


def test_a_changed_recipe_names_its_keys_and_force_goes_on(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ("learning_rate=1e-4", "augment.flip=false", "checkpoint_minutes=5")
    with pytest.raises(RecipeError) as caught:
        loop.resume(stopped, overrides=changes)
    assert str(caught.value) == (
        f"run {stopped}: the recipe is not the one that the checkpoint was trained with: augment.flip True -> False; "
        "training.learning_rate 0.001 -> 0.0001; take back the change, or go on with it: --force"
    )
    loop.resume(stopped, overrides=changes, force=True)
    assert "going on with a changed recipe: augment.flip True -> False; " in capsys.readouterr().err
    assert "learning_rate = 0.0001" in (stopped / "recipe.toml").read_text()
    assert open_run(stopped).status == "complete"


def test_another_batch_size_begins_its_epoch_anew(stopped: Path) -> None:
    loop.resume(stopped, overrides=["batch_size=11"], force=True)
    assert [row["epoch"] for row in history(stopped)] == ["1", "2", "3"]


def test_another_network_cannot_be_forced(stopped: Path) -> None:
    with pytest.raises(WeightsError, match=r"of another network .model.arch 'sam-resnet18' -> 'sam-resnet34'"):
        loop.resume(stopped, overrides=["model.arch=sam-resnet34"], force=True)


def test_other_pictures(stopped: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copytree(pictures, tmp_path / "pictures"))
    Image.new("RGB", (8, 8), (200, 0, 0)).save(copy / "train" / "dark" / "0.png")
    with pytest.raises(DatasetError, match=r"changed since the checkpoint was written \(train differ\); .*: --force"):
        loop.resume(stopped, overrides=[f"data.root={copy}"])
    loop.resume(stopped, overrides=[f"data.root={copy}"], force=True)
    assert "(train differ); going on with the new pictures" in capsys.readouterr().err


def test_pictures_elsewhere_are_the_same_pictures(stopped: Path, pictures: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(pictures, tmp_path / "pictures"))
    loop.resume(stopped, overrides=[f"data.root={copy}"])
    assert open_run(stopped).data_root == str(copy)


def test_other_classes_cannot_be_forced(stopped: Path, pictures: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(pictures, tmp_path / "pictures"))
    for split in ("train", "val", "test"):
        (copy / split / "dark").rename(copy / split / "sombre")
    with pytest.raises(WeightsError, match="its checkpoint knows 2 classes, the data set has 2 or others"):
        loop.resume(stopped, overrides=[f"data.root={copy}"], force=True)


def test_a_damaged_checkpoint(stopped: Path, capsys: pytest.CaptureFixture[str], undisturbed: Path) -> None:
    last = stopped / "checkpoints" / "last.safetensors"
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes(data)
    assert loop.resume(stopped) == stopped  # from the end of epoch 1
    said = capsys.readouterr().err
    assert "last.safetensors: damaged, its content is not what was written; going on from previous.safetensors" in said
    assert "going on at epoch 2 step 0" in said
    assert (stopped / "weights.safetensors").read_bytes() == (undisturbed / "weights.safetensors").read_bytes()


def test_which_run(stopped: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = stopped.parent
    assert find_run(None, root) == find_run(stopped.name, root) == find_run(str(stopped), root) == stopped
    assert f"taking the newest unfinished run: {stopped}" in capsys.readouterr().err
    with pytest.raises(InputError, match=f"run nowhere: no such folder; unfinished runs below .*: {stopped}"):
        find_run("nowhere", root)
    with pytest.raises(InputError, match="no unfinished run with a checkpoint below"):
        find_run(None, undisturbed.parent)
    shutil.copytree(undisturbed, tmp_path / "damaged")
    (tmp_path / "damaged" / "run.json").write_text('{"format')
    with pytest.raises(InputError, match=r"its run\.json is damaged, and there is no checkpoint to go on from"):
        find_run(str(tmp_path / "damaged"), root)
    with pytest.raises(InputError, match="is complete, and a complete run keeps no checkpoint"):
        find_run(str(undisturbed), root)


def test_two_processes_cannot_train_one_run(stopped: Path) -> None:
    code = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
        "print('held', flush=True); input()"
    )
    held = [sys.executable, "-c", code, str(stopped / "checkpoints" / "lock")]
    with subprocess.Popen(held, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another process is training it; wait for its end or stop it first"):
            loop.resume(stopped)
        assert unfinished_runs(stopped.parent) == []
        other.communicate("\n")


# --- the disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 450 MB of its own; about 320 MB are needed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=450m", "tmpfs", str(folder)]
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
            (small_disk / "other").write_bytes(bytes(free - 20_000_000))
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


def test_too_little_room_is_said_before_training(tmp_path: Path, recipe: MakeRecipe) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saver.shutil, "disk_usage", lambda _: usage)
        with pytest.raises(
            SamdeployError, match="100 MB are free, but weights and checkpoints of this network take up to"
        ):
            loop.train(recipe(), runs_root=tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []
