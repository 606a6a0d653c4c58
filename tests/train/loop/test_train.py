"""Real trainings of a real network on a tiny data set."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from samdeploy.bundle.spec import IMAGENET_MEAN, IMAGENET_STD
from samdeploy.errors import BackendUnavailable, DatasetError, RecipeError, TrainingError, WeightsError
from samdeploy.images.decode import prepare
from samdeploy.models import build_model, load_weights, save_weights
from samdeploy.runs.record import latest_run, open_run
from samdeploy.train import prepare as prepare_file
from samdeploy.train.loop import epoch as epoch_file
from samdeploy.train.loop import fit
from samdeploy.train.loop import train as loop
from samdeploy.train.recipe.dump import dump_recipe
from samdeploy.train.recipe.load import load_recipe
from samdeploy.train.recipe.recipe import Recipe
from samdeploy.train.watch import curves

pytestmark = pytest.mark.usefixtures("small_network")

MakeRecipe = Callable[..., Recipe]


def history(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(recipe: MakeRecipe, small_network: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of two epochs."""
    return loop.train(recipe(), runs_root=tmp_path_factory.mktemp("finished") / "runs")


def test_a_run_holds_its_files_and_its_resolved_recipe(finished: Path, recipe: MakeRecipe) -> None:
    assert sorted(path.name for path in finished.iterdir()) == [
        *("classes.csv", "confusion.csv"),
        "gates.csv", "hashes.npz", "history.csv", "leaks.json", "recipe.toml", "run.json", "weights.safetensors",
    ]  # fmt: skip
    assert load_recipe(finished / "recipe.toml") == recipe()
    assert (finished / "recipe.toml").read_text() == dump_recipe(recipe())
    assert latest_run(finished.parent) == finished


def test_run_json(finished: Path, examples: Path) -> None:
    record = open_run(finished)
    assert record.status == "complete"
    assert (record.arch, record.options, record.classes) == (
        "sam-resnet18",
        {"gate": "identity", "stem": "imagenet"},
        ("bright", "dark"),
    )
    assert record.counts == {"train": 22, "val": 8, "test": 10}
    assert record.data_root == str(examples)
    assert len({len(record.fingerprints[split]) for split in ("train", "val", "test")}) == 1
    assert record.provenance["precision"] == "fp32"
    assert record.provenance["torch"] == torch.__version__


def test_history_has_one_row_per_epoch_and_agrees_with_run_json(finished: Path) -> None:
    rows = history(finished)
    assert list(rows[0]) == [
        "epoch", "learning_rate", "train_loss", "train_top1", "val_loss", "val_top1", "val_balanced_accuracy",
        "val_macro_f1", "images_per_s", "seconds",
    ]  # fmt: skip
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["learning_rate"] for row in rows] == ["0.001", "0.001"]
    record = open_run(finished)
    best = max(rows, key=lambda row: (float(row["val_top1"]), -float(row["val_loss"])))
    assert int(best["epoch"]) == record.best_epoch
    assert float(best["val_top1"]) == pytest.approx(record.best_val_top1, rel=1e-5)
    for row in rows:
        assert float(row["train_top1"]) * 22 / 100 == pytest.approx(
            round(float(row["train_top1"]) * 22 / 100), abs=1e-3
        )
        assert float(row["seconds"]) > 0


def test_test_accuracy_equals_a_recount_over_every_image(finished: Path, examples: Path) -> None:
    # Independent: one image at a time, float64, its own normalisation; 10 images are a batch of 7 and one of 3.
    record = open_run(finished)
    model = build_model("sam-resnet18", 2, {"gate": "identity", "stem": "imagenet"}).double().eval()
    load_weights(model, finished / "weights.safetensors")
    model.double()
    correct = 0
    for label, name in enumerate(record.classes):
        files = sorted((examples / "test" / name).iterdir())
        assert len(files) == 5
        for file in files:
            image = prepare(file, record.preprocessing).astype(np.float64) / 255
            image = (image - IMAGENET_MEAN) / IMAGENET_STD
            with torch.no_grad():
                logits = model(torch.from_numpy(image.transpose(2, 0, 1)[None]))
            correct += int(logits.argmax()) == label
    assert (record.test_correct, record.test_images) == (correct, 10)
    assert record.test_top1 == 10 * correct


def test_the_same_recipe_gives_the_same_bytes(finished: Path, recipe: MakeRecipe, tmp_path: Path) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = loop.train(recipe(), runs_root=tmp_path)
    assert (again / "weights.safetensors").read_bytes() == (finished / "weights.safetensors").read_bytes()
    assert torch.equal(torch.get_rng_state(), before), "training must leave the caller's generator alone"


def test_another_seed_gives_other_weights(finished: Path, recipe: MakeRecipe, tmp_path: Path) -> None:
    other = loop.train(recipe("seed=1", "epochs=1"), runs_root=tmp_path)
    assert (other / "weights.safetensors").read_bytes() != (finished / "weights.safetensors").read_bytes()


def test_summary_lines(recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = loop.train(
        recipe("epochs=1", "schedule=cosine", "weight_decay=0.1", "label_smoothing=0.1", "clip_norm=1"),
        runs_root=tmp_path,
    )
    captured = capsys.readouterr()
    assert captured.out == ""
    warnings = [line for line in captured.err.splitlines() if line.startswith("warning: ")]
    assert [f"warning: {text}" for text in open_run(run).warnings] == warnings
    first, header, epoch, last = (line for line in captured.err.splitlines() if line not in warnings)
    assert first.startswith(
        "training sam-resnet18 (gate identity, stem imagenet) on folder: 2 classes, 22 train, 8 val, 10 test images"
    )
    record = open_run(run)
    assert header == "    epoch     loss  top-1 %  val loss val top-1 images/s  seconds time left"
    cells = epoch.split()
    assert (cells[0], float(cells[4]), cells[-1]) == ("1/1", pytest.approx(record.best_val_top1, abs=0.01), "best")
    assert len(header) == epoch.index(" best") <= 75  # under one another, and not wider than 80 columns
    assert last == (
        f"test top-1 {record.test_top1:.2f} % ({record.test_correct} of 10 images), weights of epoch 1 "
        f"(val top-1 {record.best_val_top1:.2f} %): {run}"
    )


def test_cudnn_stays_on(recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # torch.backends.cudnn.flags() turns it off unless told otherwise: 20 times slower on a GPU, and nothing fails.
    seen: list[tuple[bool, bool]] = []

    def look(*_: object) -> None:
        seen.append((torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark))
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "train_epoch", look)
    with pytest.raises(KeyboardInterrupt):
        loop.train(recipe(), runs_root=tmp_path)
    assert seen == [(True, True)]
    assert not torch.backends.cudnn.benchmark


def test_curves_are_drawn_after_the_last_epoch(
    recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(curves, "draw_curves", lambda run, rows, gates: drawn.append(len(rows)))
    loop.train(recipe(), runs_root=tmp_path)
    assert drawn[-1] == 2


def test_early_stopping(recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = loop.train(recipe("epochs=40", "patience=1"), runs_root=tmp_path)
    rows = history(run)
    record = open_run(run)
    assert len(rows) < 40
    assert len(rows) - record.best_epoch == 1
    assert record.status == "complete"
    assert "stopped: no better validation in 1 epochs" in capsys.readouterr().err


def test_divergence_before_any_epoch_leaves_nothing(recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as caught:
        loop.train(recipe("learning_rate=1e30"), runs_root=tmp_path / "runs")
    message = str(caught.value)
    assert "training diverged: the training loss became nan at epoch 1, step 2 of 3 (learning rate 1e+30)" in message
    assert "lower the learning rate: --set training.learning_rate=1e+29" in message
    assert "No epoch had finished, so " in message
    assert list((tmp_path / "runs").iterdir()) == []


def test_divergence_later_keeps_the_best_weights(
    recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Sound in the first epoch, then far too fast.
    monkeypatch.setattr(epoch_file, "learning_rate", lambda _, step, steps: 1e-3 if step < steps else 1e30)
    with pytest.raises(TrainingError, match=r"at epoch 2, step 2 of 3 .* The best weights \(epoch 1, val top-1 "):
        loop.train(recipe(), runs_root=tmp_path)
    run = latest_run(tmp_path)
    record = open_run(run)
    assert (record.status, record.best_epoch, record.test_top1) == ("diverged", 1, None)
    assert len(history(run)) == 1
    load_weights(build_model("sam-resnet18", 2, {"gate": "identity", "stem": "imagenet"}), run / "weights.safetensors")


def test_a_validation_loss_that_is_not_finite_is_divergence_too(
    recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One batch per epoch: its own loss is still sound, the weights after it are not.
    monkeypatch.setattr(epoch_file, "learning_rate", lambda *_: 1e30)
    with pytest.raises(TrainingError, match="the validation loss is nan after epoch 1"):
        loop.train(recipe("batch_size=22"), runs_root=tmp_path)


def test_interrupt_before_the_first_epoch_removes_the_folder(
    recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "train_epoch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.train(recipe(), runs_root=tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []
    assert "No epoch had finished, so " in capsys.readouterr().err


def test_nothing_is_written_where_a_image_is_damaged(recipe: MakeRecipe, examples: Path, tmp_path: Path) -> None:
    # In test and val of all splits: it must come out before training, and at once.
    copy = tmp_path / "copy"
    for file in sorted(examples.rglob("*.png")):
        target = copy / file.relative_to(examples)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    for split in ("val", "test"):
        (copy / split / "dark" / "0.png").write_bytes(b"no image")
    said = r"(?s)  - val: 1 of \d+ images cannot .*val/dark/0\.png.*  - test: 1 of 10 images cannot .*0\.png"
    with pytest.raises(DatasetError, match=said):
        loop.train(recipe(f"data.root={copy}"), runs_root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_weights_are_looked_at_before_images(
    recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_file, "prepare_splits", lambda *_: pytest.fail("images were decoded"))
    save_weights(build_model("sam-resnet34", 2), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="does not fit sam-resnet18: this looks like "):
        loop.train(recipe(f"model.pretrained={tmp_path / 'w.safetensors'}"), runs_root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_nothing_is_written_where_the_imagenet_weights_are_missing(recipe: MakeRecipe, tmp_path: Path) -> None:
    for name in (str(tmp_path / "none.pth"), "no"):
        refused = f"model.pretrained: {name!r} found, no such file; true, false, or a file of"
        with pytest.raises(WeightsError, match=refused):
            loop.train(recipe(f"model.pretrained={name}"), runs_root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_one_class_is_refused(recipe: MakeRecipe, tmp_path: Path) -> None:
    (tmp_path / "one" / "cat").mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / "one" / "cat" / f"{number}.png")
    with pytest.raises(DatasetError, match="at least 2 class"):
        loop.train(recipe(f"data.root={tmp_path / 'one'}"), runs_root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_empty_split_is_refused(recipe: MakeRecipe, examples: Path, tmp_path: Path, split: str) -> None:
    for part in ("train", "val", "test"):
        for label in ("bright", "dark"):
            (tmp_path / "set" / part / label).mkdir(parents=True)
            for file in (examples / part / label).iterdir() if part != split else ():
                os.link(file, tmp_path / "set" / part / label / file.name)
    with pytest.raises(DatasetError, match=rf"set/{split}"):
        loop.train(recipe(f"data.root={tmp_path / 'set'}"), runs_root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_gpu_that_is_not_there(recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable) as caught:
        loop.train(recipe("device=cuda:99"), runs_root=tmp_path)
    message = str(caught.value)
    assert message.startswith(f"device 'cuda:99' asked, but PyTorch {torch.__version__} sees ")
    assert "--set training.device=cpu" in message


def test_fp16_on_the_cpu_is_refused(recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"training\.precision: 'fp16' found, but the device is the CPU"):
        loop.train(recipe("precision=fp16"), runs_root=tmp_path)
