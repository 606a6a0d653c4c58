"""Which epoch is the best, and what stays on disk."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from samdeploy.bundle.spec import Preprocessing
from samdeploy.errors import InputError
from samdeploy.runs.new_folder import check_runs_root
from samdeploy.runs.record import RunRecord, open_run
from samdeploy.train.loop.train import train
from samdeploy.train.recipe.recipe import Recipe
from samdeploy.train.run import folder as run_folder
from samdeploy.train.run.folder import RunFolder
from samdeploy.train.watch.history import EpochRow

RECORD = RunRecord(
    arch="sam-resnet18",
    options={"gate": "identity"},
    classes=("a", "b"),
    preprocessing=Preprocessing(32, 32),
    dataset="folder",
    data_options={},
    data_root="data",
    val_fraction=0.1,
    split_seed=0,
    counts={"train": 2, "val": 1, "test": 1},
    fingerprints={"train": "0" * 64, "val": "1" * 64, "test": "2" * 64},
    status="training",
    best_epoch=0,
    best_val_top1=0.0,
    best_val_loss=0.0,
    test_top1=None,
    test_correct=None,
    test_images=None,
    provenance={},
)


def row(epoch: int, val_top1: float, val_loss: float) -> EpochRow:
    return EpochRow(epoch, 1e-3, 0.5, 80.0, val_loss, val_top1, val_top1, 0.5, 100.0, 1.0)


def test_best_is_higher_top1_then_lower_loss(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    run = RunFolder.create(tmp_path / "runs", recipe(), RECORD)
    model = nn.Linear(1, 1, bias=False)
    figures = [(0.0, 9.0, True), (50.0, 2.0, True), (50.0, 2.0, False), (40.0, 0.1, False), (50.0, 1.9, True)]
    rows = [row(epoch, top1, loss) for epoch, (top1, loss, _) in enumerate(figures, start=1)]
    for epoch, (_, _, best) in enumerate(figures, start=1):
        nn.init.constant_(model.weight, epoch)
        assert run.epoch(rows[:epoch], model) is best
    record = open_run(run.path)
    assert (record.status, record.best_epoch, record.best_val_top1, record.best_val_loss) == ("training", 5, 50.0, 1.9)
    assert torch.equal(load_file(run.path / "weights.safetensors")["weight"], torch.tensor([[5.0]]))
    with (run.path / "history.csv").open(newline="") as file:
        assert [line["epoch"] for line in csv.DictReader(file)] == ["1", "2", "3", "4", "5"]


def test_two_runs_in_one_second_get_two_folders(
    tmp_path: Path, recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder.time, "strftime", lambda _: "20260102-030405")
    names = [RunFolder.create(tmp_path / "runs", recipe(), RECORD).path.name for _ in range(3)]
    assert names == ["tiny-20260102-030405", "tiny-20260102-030405-2", "tiny-20260102-030405-3"]


def test_a_runs_folder_that_is_a_file(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match=r"runs: cannot be written to \(File exists\); .*: --runs DIR"):
        RunFolder.create(tmp_path / "runs", recipe(), RECORD)


def test_a_runs_folder_that_is_a_file_is_found_before_images_are_decoded(
    tmp_path: Path, recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"runs: cannot be written to \(.*/file is a file\); .*: --runs DIR"):
        train(recipe(), runs_root=tmp_path / "file" / "runs")
    assert capsys.readouterr().err == ""


def test_a_runs_folder_may_be_made(tmp_path: Path) -> None:
    check_runs_root(tmp_path / "not" / "yet" / "there")
    assert list(tmp_path.iterdir()) == []


def test_a_runs_folder_that_may_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write everywhere
    with pytest.raises(InputError, match=rf"runs: cannot be written to \({tmp_path}: permission denied\); .*DIR"):
        check_runs_root(tmp_path / "runs")


def test_publishing_the_same_weights_again_leaves_no_second_name(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    run = RunFolder.create(tmp_path / "runs", recipe(), RECORD)
    run.epoch([row(1, 50.0, 1.0)], nn.Linear(1, 1))
    run._publish(1)
    assert [path.name for path in run.path.glob(".weights*")] == []


def test_another_monitor_judges_the_best_epoch_anew(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    run = RunFolder.create(tmp_path / "runs", recipe(), RECORD)
    rows = [row(1, 50.0, 1.0), row(2, 40.0, 0.5)]
    run.epoch(rows[:1], nn.Linear(1, 1))
    facts = run.facts()
    again = RunFolder(run.path, recipe("training.monitor=loss"), RECORD)
    again.restore(facts, rows[:1], [])
    assert again.epoch(rows, nn.Linear(1, 1))
    run.unlock()
