"""Precision "auto": measured once per training, said, recorded, and kept by all that belongs to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from samdeploy.errors import RecipeError
from samdeploy.models import build_model
from samdeploy.runs.record import open_run
from samdeploy.train.checkpoints.state import TrainState
from samdeploy.train.choices import precision_probe
from samdeploy.train.choices.precision_probe import Probe, probe, settle_precision
from samdeploy.train.loop.train import resume, train
from samdeploy.train.recipe.recipe import Recipe
from samdeploy.train.reproduce import reproduce

pytestmark = pytest.mark.usefixtures("small_network")

MakeRecipe = Callable[..., Recipe]
CPU = torch.device("cpu")


class Clock:
    """Stands in for the measurement: every answer is used once, and asking again is an error."""

    def __init__(self, *answers: Probe) -> None:
        self._answers = list(answers)

    def __call__(self, *_: object) -> Probe:
        return self._answers.pop(0)


FAST_BF16, SLOW_BF16 = Probe(torch.bfloat16, 1.6), Probe(None, 0.25)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Any training here is worth measuring, and this is what is measured."""
    monkeypatch.setattr(precision_probe, "multiplies_bf16", lambda: True)
    monkeypatch.setattr(precision_probe, "WORTH", 0)
    return lambda *answers: monkeypatch.setattr(precision_probe, "probe", Clock(*answers))


def settle(recipe: Recipe, kept: str | None = None) -> tuple[torch.dtype | None, str]:
    return settle_precision(recipe, build_model("sam-resnet18", 2, {"gate": "none"}), CPU, (22, 32, 32), kept)


def test_no_bf16_where_its_gradients_are_wrong(recipe: MakeRecipe, clock: Callable[..., None]) -> None:
    clock()  # nothing is measured
    model = build_model("sam-resnet18", 2, {"gate": "none"})
    found = settle_precision(recipe("precision=auto"), model, CPU, (22, 16, 32), None)
    assert found == (None, "bf16 gradients on a CPU are wrong up to 16 pixels")
    for asked, kept in (("bf16", None), ("auto", "bf16")):
        with pytest.raises(RecipeError, match=r"bf16 at 32x16 pixels found; .* --set training.precision=fp32"):
            settle_precision(recipe(f"precision={asked}"), model, CPU, (22, 32, 16), kept)


def test_the_measurement_leaves_the_network_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_probe, "IMAGES", 2)
    model = build_model("sam-resnet18", 2, {"gate": "identity"}).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = probe(model, 32, 32, 4)
    assert found.gain > 0
    assert (found.autocast == torch.bfloat16) == (found.gain >= precision_probe.MIN_GAIN)
    assert not model.training
    assert all(weight.grad is None for weight in model.parameters())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize(("seconds", "sizes"), [(1e9, {2, 6}), (0.0, {2})])
def test_batches_are_as_large_as_the_training_has_them_if_that_is_quick(
    monkeypatch: pytest.MonkeyPatch, seconds: float, sizes: set[int]
) -> None:
    monkeypatch.setattr(precision_probe, "IMAGES", 2)
    monkeypatch.setattr(precision_probe, "STEP_S", seconds)
    model = build_model("sam-resnet18", 2, {"gate": "identity"})
    seen = []
    model.register_forward_hook(lambda _, arguments, __: seen.append(len(arguments[0])))
    probe(model, 32, 32, 6)
    assert set(seen) == sizes


def test_it_is_said_with_the_way_to_fix_it(
    recipe: MakeRecipe, clock: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    clock(FAST_BF16, SLOW_BF16)
    assert settle(recipe("precision=auto"))[0] == torch.bfloat16
    assert capsys.readouterr().err == (
        "precision: bf16 (measured: bf16 1.60 times as fast as fp32 here and now; the next training may find "
        "otherwise: --set training.precision=bf16 fixes it)\n"
    )
    assert settle(recipe("precision=auto")) == (None, "measured: bf16 0.25 times as fast as fp32")
    assert "--set training.precision=fp32 fixes it" in capsys.readouterr().err


def test_what_is_asked_for_or_begun_with_is_not_measured(recipe: MakeRecipe, clock: Callable[..., None]) -> None:
    clock()
    assert settle(recipe("precision=bf16"), kept="fp32")[0] == torch.bfloat16
    assert settle(recipe("precision=auto"), kept="bf16")[0] == torch.bfloat16
    assert settle(recipe("precision=auto"), kept="fp32")[0] is None


def test_a_short_training_is_not_measured(
    recipe: MakeRecipe, clock: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock()
    monkeypatch.setattr(precision_probe, "WORTH", 100)
    assert settle(recipe("precision=auto", "epochs=2"))[0] is None


def test_a_training_begun_on_another_device(
    recipe: MakeRecipe, clock: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    clock(SLOW_BF16)
    assert settle(recipe("precision=auto"), kept="fp16")[0] is None
    assert "precision: fp16 until here, which this device does not train in" in capsys.readouterr().err


def test_going_on_keeps_it(
    recipe: MakeRecipe, clock: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(SLOW_BF16)
    advance = TrainState.advance

    def once(state: TrainState, loss: torch.Tensor, hits: torch.Tensor) -> None:
        advance(state, loss, hits)
        if state.epoch == 2:
            raise RuntimeError("pulled out")

    monkeypatch.setattr(TrainState, "advance", once)
    with pytest.raises(RuntimeError, match="pulled out"):
        train(recipe("precision=auto"), runs_root=tmp_path)
    monkeypatch.setattr(TrainState, "advance", advance)
    run = resume(next(tmp_path.iterdir()))  # a second measurement would be an error
    record = open_run(run)
    assert record.provenance["precision"] == "fp32"
    assert record.provenance["precision_choice"] == "measured: bf16 0.25 times as fast as fp32"
    assert len(record.legs) == 2


def test_all_seeds_are_trained_in_the_first_ones(
    recipe: MakeRecipe, clock: Callable[..., None], tmp_path: Path
) -> None:
    clock(SLOW_BF16)
    found = reproduce(recipe("precision=auto", "epochs=1"), count=2, folder=tmp_path)
    runs = [open_run(Path(str(run.path))).provenance for run in found.runs]
    assert [run["precision"] for run in runs] == ["fp32", "fp32"]
