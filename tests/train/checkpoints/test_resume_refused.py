"""What a stopped training cannot go on with, or only when forced; and which run is meant."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from samdeploy.errors import DatasetError, InputError, RecipeError, WeightsError
from samdeploy.runs.record import open_run
from samdeploy.train.checkpoints.resume import find_run, unfinished_runs
from samdeploy.train.loop import train as loop
from samdeploy.train.recipe.load import load_recipe

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_network")]


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


def test_another_network_cannot_be_forced(stopped: Path) -> None:
    with pytest.raises(WeightsError, match=r"of another network .model.arch 'sam-resnet18' -> 'sam-resnet34'"):
        loop.resume(stopped, overrides=["model.arch=sam-resnet34"], force=True)


def test_other_images(stopped: Path, examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copytree(examples, tmp_path / "images"))
    Image.new("RGB", (8, 8), (200, 0, 0)).save(copy / "train" / "dark" / "0.png")
    with pytest.raises(
        DatasetError, match=r"changed since the checkpoint was written \(train: 1 of 22 gone, 1 new\); .*: --force"
    ):
        loop.resume(stopped, overrides=[f"data.root={copy}"])
    loop.resume(stopped, overrides=[f"data.root={copy}"], force=True)
    assert "(train: 1 of 22 gone, 1 new); going on with the new images" in capsys.readouterr().err


def test_other_classes_cannot_be_forced(stopped: Path, examples: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(examples, tmp_path / "images"))
    for split in ("train", "val", "test"):
        (copy / split / "dark").rename(copy / split / "sombre")
    with pytest.raises(
        WeightsError, match=r"its checkpoint knows 2 classes, the data set has 2 \(gone: dark; new: sombre\); restore"
    ):
        loop.resume(stopped, overrides=[f"data.root={copy}"], force=True)


def test_which_run(stopped: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = stopped.parent
    assert find_run(None, root) == find_run(stopped.name, root) == find_run(str(stopped), root) == stopped
    assert f"taking the newest unfinished run: {stopped}" in capsys.readouterr().err
    with pytest.raises(InputError, match=f"run nowhere: no such folder; unfinished runs below .*: {stopped}"):
        find_run("nowhere", root)
    with pytest.raises(InputError, match=r"no unfinished run with a checkpoint in .* .runs there: 1 complete.; name"):
        find_run(None, undisturbed.parent)
    with pytest.raises(InputError, match=r"no unfinished run .* .runs there: none.; name the folder of runs"):
        find_run(None, tmp_path / "nowhere")
    with pytest.raises(
        InputError, match=f"recipe.toml: a file found, the folder of a run expected, for example {stopped}"
    ):
        find_run(str(stopped / "recipe.toml"), root)
    shutil.copytree(undisturbed, tmp_path / "damaged")
    (tmp_path / "damaged" / "run.json").write_text('{"format')
    with pytest.raises(InputError, match=r"its run\.json is damaged, and there is no checkpoint to go on from"):
        find_run(str(tmp_path / "damaged"), root)
    with pytest.raises(InputError, match="is complete, nothing is left to resume; to train again"):
        find_run(str(undisturbed), root)


def test_a_folder_above_or_below_the_run(stopped: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        find_run(str(stopped.parent), tmp_path)
    assert str(caught.value) == (
        f"run {stopped.parent}: a folder of runs found, a run expected; to go on with its newest unfinished one: "
        f"samdeploy train --resume --runs {stopped.parent}; found there: 1 stopped"
    )
    below = stopped / "checkpoints"
    with pytest.raises(InputError, match=f"run {below}: a run's folder of checkpoints .* the run expected: {stopped}$"):
        find_run(str(below), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: a run's folder expected; neither run\.json, recipe\.toml nor"):
        find_run("empty", tmp_path)


def test_a_recipe_that_is_gone_is_in_the_checkpoint(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = stopped / "recipe.toml"
    before = load_recipe(recipe)
    recipe.unlink()
    assert find_run(None, stopped.parent) == stopped
    with pytest.raises(RecipeError, match=r"training\.learning_rate 0\.001 -> 0\.1; take back"):
        loop.resume(stopped, overrides=["learning_rate=0.1"])
    assert load_recipe(recipe) == before
    assert f"{recipe}: was gone; written anew from the checkpoint" in capsys.readouterr().err


def test_two_processes_cannot_train_one_run(stopped: Path) -> None:
    code = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
        "print('held', flush=True); input()"
    )
    held = [sys.executable, "-c", code, str(stopped / "checkpoints" / "lock")]
    with subprocess.Popen(held, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        refused = "another process is training it; wait for its end or stop it first"
        with pytest.raises(InputError, match=refused):
            loop.resume(stopped)
        with pytest.raises(InputError, match=refused):
            find_run(str(stopped), stopped.parent)
        waits = r"runs there: 1 being trained.; wait for the run that is being trained, or stop it first; or name"
        with pytest.raises(InputError, match=waits):
            find_run(None, stopped.parent)
        assert unfinished_runs(stopped.parent) == []
        other.communicate("\n")
