"""`--force`: what the weights have learnt from, and what the best epoch is worth, when recipe or images change."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from samdeploy.bundle.fields import to_json
from samdeploy.data.duplicates.image_hashes import read_hashes
from samdeploy.errors import DatasetError
from samdeploy.runs.record import Leg, legs_in_words, open_run
from samdeploy.train.checkpoints.checkpoint import Checkpoint
from samdeploy.train.checkpoints.resume import Resumed
from samdeploy.train.distributed import Ranks
from samdeploy.train.loop import train as loop
from samdeploy.train.recipe.recipe import Recipe
from samdeploy.train.run.provenance import resumed_record
from tests.train.stopping import stopping

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_network")]

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def stopped_once(recipe: Callable[..., Recipe], small_network: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After step 2 of 3 of its second epoch."""
    root = tmp_path_factory.mktemp("stopped")
    with stopping(2, 2), pytest.raises(SystemExit):
        loop.train(recipe("epochs=3", "patience=0"), runs_root=root)
    return next(root.iterdir())


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped_once, tmp_path / "runs" / stopped_once.name))


@pytest.fixture
def others(examples: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(examples, tmp_path / "images"))


def measured_anew(said: str) -> tuple[float, float]:
    """Before and now, of the best epoch so far."""
    found = re.search(r"\(epoch 1\): val top-1 ([\d.]+) % on the images as they were, ([\d.]+) % as they are", said)
    assert found, said
    return float(found[1]), float(found[2])


def test_the_best_epoch_is_measured_on_the_images_of_now(stopped: Path, others: Path, capsys: Capture) -> None:
    before = open_run(stopped)
    (others / "val" / "bright").rename(others / "val" / "aside")
    (others / "val" / "dark").rename(others / "val" / "bright")
    (others / "val" / "aside").rename(others / "val" / "dark")
    loop.resume(stopped, overrides=[f"data.root={others}"], force=True)
    said = capsys.readouterr().err
    assert "(val: the same images, but their labels, their order or their number differ); going on" in said
    then, now = measured_anew(said)
    assert then == pytest.approx(before.best_val_top1, abs=0.01)
    assert now == pytest.approx(100 - then, abs=0.01)  # two classes, and each image has the other's name
    after = open_run(stopped)
    assert [(leg.epoch, leg.step, leg.changed) for leg in after.legs] == [(1, 0, ()), (2, 2, ("images of val",))]
    rows = (stopped / "history.csv").read_text().splitlines()[1:]
    assert after.best_val_top1 >= now
    assert after.best_epoch == 1 or len(rows) == 3


def test_images_prepared_otherwise_are_other_images(stopped: Path, capsys: Capture) -> None:
    loop.resume(stopped, overrides=["image.mean=[0.1,0.9,0.5]"], force=True)  # the files and their pixels are the same
    measured_anew(capsys.readouterr().err)
    (changed,) = open_run(stopped).legs[-1].changed
    assert changed.startswith("image.mean [")


def test_what_says_nothing_about_images_leaves_the_best_alone(stopped: Path, capsys: Capture) -> None:
    with stopping(3, 1), pytest.raises(SystemExit):
        loop.resume(stopped, overrides=["learning_rate=1e-4"], force=True)
    loop.resume(stopped, overrides=["clip_norm=1"], force=True)
    assert "as they were" not in capsys.readouterr().err
    legs = open_run(stopped).legs
    assert [leg.changed for leg in legs] == [
        (), ("training.learning_rate 0.001 -> 0.0001",), ("training.clip_norm 0.0 -> 1.0",)
    ]  # fmt: skip
    assert legs_in_words(legs)["changed_by_force"] == (
        "at epoch 2 step 2: training.learning_rate 0.001 -> 0.0001 | at epoch 3 step 1: training.clip_norm 0.0 -> 1.0"
    )


def test_images_that_were_trained_on_do_not_become_test_images(
    stopped: Path, others: Path, examples: Path, capsys: Capture
) -> None:
    moved = [others / "test" / "dark" / f"moved{number}.png" for number in range(3)]
    for number, path in enumerate(moved):
        (others / "train" / "dark" / f"{number}.png").rename(path)
    Image.new("RGB", (8, 8), (90, 90, 95)).save(others / "train" / "dark" / "new.png")
    overrides = [f"data.root={others}"]
    refused = (
        r"checkpoint was written \(train: 3 of 22 gone, 1 new; test: 0 of 10 gone, 3 new\)\. With those that were "
        r"trained on before: 3 of 13 test images \(23\.1 %\) are also in train"
    )
    for force in (False, True):  # without it, the cure is not one that is refused again
        with pytest.raises(DatasetError, match=refused) as caught:
            loop.resume(stopped, overrides=overrides, force=force)
        assert "drawn anew when images come or go" in str(caught.value)
        assert "--set data.leaks=report --force. For example: " in str(caught.value)
    assert "going on" not in capsys.readouterr().err
    assert open_run(stopped).status == "interrupted"
    with stopping(3, 1), pytest.raises(SystemExit):
        loop.resume(stopped, overrides=[*overrides, "data.leaks=report"], force=True)
    said = capsys.readouterr().err
    assert "(train: 3 of 22 gone, 1 new; test: 0 of 10 gone, 3 new); going on with the new images\n" in said
    assert said.count("3 of 13 test images (23.08 %) are also in train, with the same pixels") == 1
    overlaps = json.loads((stopped / "leaks.json").read_text())["overlaps"]
    (found,) = [overlap for overlap in overlaps if (overlap["split"], overlap["other"]) == ("test", "train")]
    assert (found["images"], found["exact"]) == (13, 3)
    hashes = read_hashes(stopped / "hashes.npz")
    assert len(hashes["train"]) == 22 - 3 + 1 + 3 and len(hashes["test"]) == 13
    assert hashes["train"].former == 3
    assert all(name.endswith(" (trained on before)") for name in hashes["train"].names[-3:])
    (others / "val" / "dark" / "0.png").unlink()
    with pytest.raises(DatasetError, match=r"written \(val: 1 of 8 gone, 0 new\)"):
        loop.resume(stopped)
    shutil.copy(examples / "val" / "dark" / "0.png", others / "val" / "dark")
    (others / "train" / "dark" / "new.png").rename(others / "aside.png")
    with pytest.raises(DatasetError, match=r"written \(train: 1 of 20 gone, 0 new\)"):  # not of those trained on before
        loop.resume(stopped)
    (others / "aside.png").rename(others / "train" / "dark" / "new.png")
    loop.resume(stopped)  # nothing changes now, and nothing is forgotten
    measures = "accuracy on test images, looked at once; but 3 of 13 test images were trained on"
    assert open_run(stopped).provenance["test_measures"] == measures
    assert f"; this is {measures}\n" in capsys.readouterr().err


def test_what_the_images_share_among_themselves_is_said_once(stopped: Path, others: Path, capsys: Capture) -> None:
    shutil.copy(others / "train" / "dark" / "0.png", others / "test" / "dark" / "copy.png")
    with stopping(3, 1), pytest.raises(SystemExit):
        loop.resume(stopped, overrides=[f"data.root={others}", "data.leaks=report"], force=True)
    assert capsys.readouterr().err.count("1 of 11 test images (9.09 %) are also in train, with the same pixels") == 1


def test_another_number_of_processes_is_recorded(stopped: Path, recipe: Callable[..., Recipe]) -> None:
    record = open_run(stopped)
    legs = [Leg(1, 0, "a", 4), Leg(1, 2, "b", 2, ("x 1 -> 2",))]
    facts = {
        "epoch": 2, "step": 1, "fingerprints": dict(record.fingerprints), "provenance": record.provenance,
        "legs": json.loads(json.dumps(to_json(legs))),
    }  # fmt: skip
    resumed = Resumed(stopped, recipe(), Checkpoint({}, facts), False)
    found = resumed_record(resumed, record).legs
    assert found == (*legs, Leg(2, 1, record.legs[0].date, 1))
    assert legs_in_words(found) == {
        "started": "a",
        "processes": "4, then 2, then 1",
        "resumed": f"epoch 1 step 2 on b; epoch 2 step 1 on {record.legs[0].date}",
        "changed_by_force": "at epoch 1 step 2: x 1 -> 2",
    }
    del facts["legs"]  # as development versions wrote them
    assert resumed_record(resumed, record).legs == (found[-1],)


def test_the_command_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Ranks().command() == "samdeploy"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert Ranks(0, 2).command() == "torchrun --nproc-per-node 2 -m samdeploy"
    assert Ranks(0, 8).command() == "torchrun --nnodes 4 --nproc-per-node 2 -m samdeploy"
