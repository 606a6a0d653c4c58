"""torch.compile: kept where it is measured to be faster, and left where it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from samdeploy.errors import TrainingError
from samdeploy.models.weights import read_state
from samdeploy.train.choices.compile_choice import TIMED, WARM_UP, CompileChoice
from samdeploy.train.distributed import Ranks
from samdeploy.train.loop.train import train
from samdeploy.train.recipe.recipe import Recipe

pytestmark = pytest.mark.usefixtures("small_network")
MakeRecipe = Callable[..., Recipe]
GPU = torch.device("cuda")
MANY = 1_000_000
SAYS = "AssertionError: expected stride 9==1 at dim=1"


class Clock:
    """Seconds that steps take, by whether they are compiled."""

    def __init__(self, plain: float, compiled: float) -> None:
        self.now, self._plain, self._compiled = 0.0, plain, compiled

    def tick(self, compiled: bool) -> None:
        self.now += self._compiled if compiled else self._plain


def _run(wanted: str, plain: float, compiled: float, total: int = MANY, device: torch.device = GPU) -> Any:
    """The state after enough steps for a choice, as the loop takes them."""
    clock, switched = Clock(plain, compiled), []
    state: Any = SimpleNamespace(compiled=None, stepper=SimpleNamespace(compile=switched.append))
    choice = CompileChoice(wanted, device, Ranks(), total, clock=lambda: clock.now)
    choice.begin(state)
    for _ in range(2 * (WARM_UP + TIMED) + 1):
        choice.before_step(state)
        clock.tick(bool(switched and switched[-1]))
    return state


@pytest.mark.parametrize(
    ("plain", "compiled", "total", "kept"),
    [
        (0.2, 0.1, MANY, True),
        (0.2, 0.198, MANY, False),  # may be chance
        (0.2, 0.3, MANY, False),
        (0.2, 0.1, 2000, False),  # six minutes: the compiler's would not come back
    ],
)
def test_auto_keeps_what_is_faster(plain: float, compiled: float, total: int, kept: bool) -> None:
    assert _run("auto", plain, compiled, total).compiled is kept


def test_what_was_asked_for_is_not_measured() -> None:
    assert _run("on", 0.2, 0.3).compiled is True
    assert _run("off", 0.2, 0.1).compiled is False
    assert _run("auto", 0.2, 0.1, device=torch.device("cpu")).compiled is False


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """torch.compile as it was seen to fail on a GPU: forward runs and moves the running means, then it gives up."""
    calls: list[int] = []

    def compile_badly(model: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(images: torch.Tensor) -> torch.Tensor:
            calls.append(len(images))
            model(images)
            raise RuntimeError(f"{SAYS}\nError in op: convolution_backward")

        return forward

    monkeypatch.setattr(torch, "compile", compile_badly)
    yield calls


def test_a_compiler_that_fails_on_trial_costs_nothing(
    recipe: MakeRecipe, tmp_path: Path, failing: list[int], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    plain = train(recipe(), runs_root=tmp_path / "plain")
    assert not failing
    # On the CPU "auto" tries nothing; on trial is what is compiled before it was chosen.
    monkeypatch.setattr(CompileChoice, "begin", lambda self, state: state.stepper.compile(True))
    tried = train(recipe(), runs_root=tmp_path / "tried")
    assert len(failing) == 1
    assert f"torch.compile: off (it fails here: {SAYS})" in capfd.readouterr().err
    expected, found = read_state(plain / "weights.safetensors"), read_state(tried / "weights.safetensors")
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        assert torch.equal(weight, found[name]), name


def test_a_compiler_that_fails_and_was_asked_for(recipe: MakeRecipe, tmp_path: Path, failing: list[int]) -> None:
    with pytest.raises(TrainingError) as caught:
        train(recipe("compile=on"), runs_root=tmp_path)
    said = f"torch.compile fails here ({SAYS}); train without it: --set training.compile=off. "
    assert str(caught.value).startswith(said)
    assert len(failing) == 1


def test_an_error_of_another(recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", broken)
    with pytest.raises(RuntimeError, match="no such kernel"):
        train(recipe(), runs_root=tmp_path)
