"""Curves and event files: drawn from the tables, never a reason to stop."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy.errors import BackendUnavailable
from samdeploy.train.watch import curves
from samdeploy.train.watch.curves import CURVES_FILE, LiveCurves, draw_curves, read_columns, read_stages
from samdeploy.train.watch.tensorboard import EVENTS_FILE, require_tensorboard, write_events

HISTORY = "epoch,learning_rate,train_loss,train_top1,val_loss,val_top1,images_per_s,seconds\n"
GATES = "epoch,stage,gate_mean,gate_sd,gate_min,gate_max,largest,headroom_bits\n"

TRAIN, VAL, LAYER4 = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0xCC, 0x79, 0xA7)


@pytest.fixture(autouse=True)
def nothing_said_yet() -> None:
    curves._said.clear()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rows = [f"{epoch},1e-3,{2 / epoch},{50 + epoch},{2.1 / epoch},{49 + epoch},300,10\n" for epoch in range(1, 5)]
    (tmp_path / "history.csv").write_text(HISTORY + "".join(rows))
    gates = [
        f"{epoch},layer{stage},1.{stage},0.{epoch},0,2,100,9.{stage}\n"
        for epoch in range(1, 5)
        for stage in range(1, 5)
    ]
    (tmp_path / "gates.csv").write_text(GATES + "".join(gates))
    return tmp_path


def shows(path: Path, colour: tuple[int, int, int]) -> bool:
    return bool((np.asarray(Image.open(path).convert("RGB")) == colour).all(axis=2).any())


def test_both_tables_are_drawn(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_curves(run)
    assert Image.open(run / CURVES_FILE).size == (1100, 560)
    for colour in (TRAIN, VAL, LAYER4):
        assert shows(run / CURVES_FILE, colour)
    assert capsys.readouterr().err == ""


def test_a_network_without_gates(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "gates.csv").write_text(GATES + "1,layer1,,,,,100,9.3\n")
    draw_curves(run)
    assert not shows(run / CURVES_FILE, LAYER4)
    (run / "gates.csv").unlink()
    (run / CURVES_FILE).unlink()
    draw_curves(run)
    assert (run / CURVES_FILE).is_file()
    assert capsys.readouterr().err == ""


def test_without_a_row_there_is_no_picture(run: Path) -> None:
    (run / "history.csv").write_text(HISTORY)
    draw_curves(run)
    (run / "history.csv").unlink()
    draw_curves(run)
    assert not (run / CURVES_FILE).exists()


def test_values_that_are_not_finite_are_left_out(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "history.csv").write_text(HISTORY + "1,1e-3,2,50,nan,40,300,10\n2,1e-3,inf,50,1,40,300,10\n")
    draw_curves(run)
    assert (run / CURVES_FILE).is_file()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("harm", ["folder", "text", "matplotlib"])
def test_nothing_that_goes_wrong_ends_a_training_and_it_is_said_once(
    harm: str, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if harm == "folder":
        (run / CURVES_FILE).mkdir()
    elif harm == "text":
        (run / "history.csv").write_bytes(b"\xff\xfe")
    else:
        load = builtins.__import__

        def no_matplotlib(name: str, *rest: object, **named: object) -> object:
            if name.startswith("matplotlib"):
                raise ImportError("planted", name="matplotlib")
            return load(name, *rest, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    draw_curves(run)
    draw_curves(run)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert ("pip install 'samdeploy[plots]'" if harm == "matplotlib" else "the training goes on") in said


def test_short_epochs_spend_little_on_pictures(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, drawn = 0.0, []
    monkeypatch.setattr(curves.time, "monotonic", lambda: now)

    def draw(_: Path) -> None:
        nonlocal now
        now += 2
        drawn.append(now)

    monkeypatch.setattr(curves, "draw_curves", draw)
    live = LiveCurves(run, tensorboard=False)
    for epoch in range(1, 101):
        now += 1
        live.after_epoch(last=epoch == 100)
    assert drawn[0] <= 15  # an impatient user has something to look at
    assert len(drawn) <= 1 + 100 * 0.05 / 2 + 1  # of 2 seconds each, in 100 seconds; and the last
    assert drawn[-1] == now


def test_columns_and_stages(run: Path) -> None:
    assert read_columns(run / "history.csv")[1]["val_top1"] == 51
    stages = read_stages(run)
    assert list(stages) == ["layer1", "layer2", "layer3", "layer4"]
    assert [row["gate_sd"] for row in stages["layer2"]] == [0.1, 0.2, 0.3, 0.4]
    assert "stage" not in stages["layer2"][0]


def test_tensorboard_that_is_not_there_is_said_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'samdeploy\[tensorboard\]'"):
        require_tensorboard()


def test_event_file_holds_every_column_once(run: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'samdeploy[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write_events(run)
    write_events(run)  # a resumed training writes the same epochs again
    found = EventAccumulator(str(run))
    found.Reload()
    assert [(event.step, event.value) for event in found.Scalars("val_top1")] == [(1, 50), (2, 51), (3, 52), (4, 53)]
    assert len(found.Scalars("gate_mean/layer3")) == 4
    assert [path.name for path in run.glob("*events*")] == [EVENTS_FILE]
    assert not list(run.glob(".events-*"))
