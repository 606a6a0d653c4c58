"""Curves and event files: drawn from the tables, never a reason to stop."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy.errors import BackendUnavailable
from samdeploy.train.watch import curves, mlflow, tensorboard
from samdeploy.train.watch.curves import CURVES_FILE, LiveCurves, draw_curves
from samdeploy.train.watch.history import EpochRow, GateRow, write_table

ROWS = [
    EpochRow(epoch, 1e-3, 2 / epoch, 50 + epoch, 2.1 / epoch, 49 + epoch, 48 + epoch, 0.5, 300, 10)
    for epoch in range(1, 5)
]
GATES = [
    GateRow(epoch, f"layer{stage}", 1 + stage / 10, epoch / 10, 0.0, 2.0, 100.0, 9 + stage / 10)
    for epoch in range(1, 5)
    for stage in range(1, 5)
]

TRAIN, VAL, LAYER4 = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0xCC, 0x79, 0xA7)


@pytest.fixture(autouse=True)
def nothing_said_yet() -> None:
    curves._said.clear()


def shows(path: Path, colour: tuple[int, int, int]) -> bool:
    return bool((np.asarray(Image.open(path).convert("RGB")) == colour).all(axis=2).any())


def test_both_tables_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_curves(tmp_path, ROWS, GATES)
    assert Image.open(tmp_path / CURVES_FILE).size == (1100, 560)
    for colour in (TRAIN, VAL, LAYER4):
        assert shows(tmp_path / CURVES_FILE, colour)
    assert capsys.readouterr().err == ""


def test_a_network_without_gates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_curves(tmp_path, ROWS, [GateRow(1, "layer1", None, None, None, None, 100.0, 9.3)])
    assert not shows(tmp_path / CURVES_FILE, LAYER4)
    draw_curves(tmp_path, ROWS, [])
    assert not shows(tmp_path / CURVES_FILE, LAYER4)
    assert capsys.readouterr().err == ""


def test_no_stage_is_left_out(tmp_path: Path) -> None:
    many = [
        GateRow(epoch, f"stage{stage}", None, None, None, None, 100.0, stage) for epoch in (1, 2) for stage in range(9)
    ]
    draw_curves(tmp_path, ROWS, many)
    assert all(shows(tmp_path / CURVES_FILE, colour) for colour in (LAYER4, (0x56, 0xB4, 0xE9), (0xF0, 0xE4, 0x42)))


def test_values_that_are_not_finite_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    losses = enumerate([(2, float("nan")), (float("inf"), 1)], start=1)
    odd = [EpochRow(epoch, 1e-3, train, 50, val, 40, 40, 0.4, 300, 10) for epoch, (train, val) in losses]
    draw_curves(tmp_path, odd, GATES)
    assert (tmp_path / CURVES_FILE).is_file()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("harm", ["folder", "matplotlib"])
def test_nothing_that_goes_wrong_ends_a_training_and_it_is_said_once(
    harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if harm == "folder":
        (tmp_path / CURVES_FILE).mkdir()
    else:
        load = builtins.__import__

        def no_matplotlib(name: str, *rest: object, **named: object) -> object:
            if name.startswith("matplotlib"):
                raise ImportError("planted", name="matplotlib")
            return load(name, *rest, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    draw_curves(tmp_path, ROWS, GATES)
    draw_curves(tmp_path, ROWS, GATES)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert ("pip install 'samdeploy[plots]'" if harm == "matplotlib" else "the training goes on") in said


def test_short_epochs_spend_little_on_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, drawn = 0.0, []
    monkeypatch.setattr(curves.time, "monotonic", lambda: now)

    def draw(*_: object) -> None:
        nonlocal now
        now += 2
        drawn.append(now)

    monkeypatch.setattr(curves, "draw_curves", draw)
    live = LiveCurves(tmp_path, [])
    for epoch in range(1, 101):
        now += 1
        live.after_epoch(ROWS, GATES, last=epoch == 100)
    assert drawn[0] <= 15  # an impatient user has something to look at
    assert len(drawn) <= 1 + 100 * 0.05 / 2 + 1  # of 2 seconds each, in 100 seconds; and the last
    assert drawn[-1] == now


def test_tables(tmp_path: Path) -> None:
    write_table(tmp_path / "history.csv", ROWS[:1])
    write_table(tmp_path / "gates.csv", [*GATES[:1], GateRow(1, "layer2", None, None, None, None, 1 / 3, 9.0)])
    assert (tmp_path / "history.csv").read_text() == (
        "epoch,learning_rate,train_loss,train_top1,val_loss,val_top1,val_balanced_accuracy,val_macro_f1,"
        "images_per_s,seconds\n1,0.001,2,51,2.1,50,49,0.5,300,10\n"
    )
    assert (tmp_path / "gates.csv").read_text() == (
        "epoch,stage,gate_mean,gate_sd,gate_min,gate_max,largest,headroom_bits\n"
        "1,layer1,1.1,0.1,0,2,100,9.1\n1,layer2,,,,,0.333333,9\n"
    )
    write_table(tmp_path / "gates.csv", [])
    assert not (tmp_path / "gates.csv").exists()


def test_tensorboard_that_is_not_there_is_said_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'samdeploy\[tensorboard\]'"):
        tensorboard.require()


def test_event_file_holds_every_column_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'samdeploy[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tensorboard.write(tmp_path, ROWS, GATES)
    tensorboard.write(tmp_path, ROWS, GATES, {"test_top1": 77.0})  # a resumed training writes the same epochs again
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    assert [(event.step, event.value) for event in found.Scalars("val_top1")] == [(1, 50), (2, 51), (3, 52), (4, 53)]
    assert len(found.Scalars("gate_mean/layer3")) == 4
    assert found.Scalars("test_top1")[0].value == 77.0
    assert [path.name for path in tmp_path.glob("*events*")] == [tensorboard.EVENTS_FILE]
    assert not list(tmp_path.glob(".events-*"))


def test_mlflow_holds_every_figure_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client_of = pytest.importorskip("mlflow", reason="pip install 'samdeploy[mlflow]'").MlflowClient
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the small package knows no database
    run = tmp_path / "tiny-1"
    run.mkdir()
    (run / "recipe.toml").write_text('name = "tiny"\n[training]\nepochs = 4\n')
    mlflow.require()
    mlflow.write(run, ROWS[:2], GATES)
    mlflow.write(run, ROWS, GATES, {"test_top1": 77.0})  # a resumed training brings the first epochs again
    client = client_of()
    (found,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert (found.info.run_name, found.info.status) == ("tiny-1", "FINISHED")
    assert found.data.params == {"name": "tiny", "training.epochs": "4"}
    history = client.get_metric_history(found.info.run_id, "val_top1")
    assert [(metric.step, metric.value) for metric in history] == [(1, 50), (2, 51), (3, 52), (4, 53)]
    assert found.data.metrics["test_top1"] == 77.0
    assert len(client.get_metric_history(found.info.run_id, "gate_mean/layer3")) == 4


def test_a_server_that_is_not_there_is_said_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="pip install 'samdeploy[mlflow]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://x")
    with pytest.raises(
        BackendUnavailable, match=r"MLflow cannot be reached: .*; name its server: MLFLOW_TRACKING_URI="
    ):
        mlflow.require()
