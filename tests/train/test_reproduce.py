"""Ten trainings: each seed once, gone on with where it was stopped, and honest figures of them all."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import scipy.stats
from PIL import Image

from samdeploy.errors import InputError, RecipeError
from samdeploy.runs.record import open_run
from samdeploy.train.recipe.dump import dump_recipe
from samdeploy.train.recipe.recipe import Recipe
from samdeploy.train.reproduce import JSON_FILE, PLOT_FILE, PUBLISHED, reproduce
from samdeploy.train.reproduction import FinishedRun, Published, Reproduction, reproduction_png, reproduction_table
from tests.train.started import Started

pytestmark = pytest.mark.usefixtures("small_network")

MakeRecipe = Callable[..., Recipe]


def finished(*figures: float | None, published: Published | None = None) -> Reproduction:
    runs = [
        FinishedRun(seed, f"runs/{seed}", figure, None if figure is None else round(figure), 100, 90.0, 3, None)
        for seed, figure in enumerate(figures)
    ]
    return Reproduction("cifar10", "accuracy on test images, looked at once", tuple(runs), published)


def test_two_seeds_then_a_third(recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "three"
    tiny = recipe("epochs=1", "training.seed=5")
    found = reproduce(tiny, count=2, folder=folder)
    assert [run.seed for run in found.runs] == [5, 6]
    paths = [Path(str(run.path)) for run in found.runs]
    assert [open_run(path).provenance["seed"] for path in paths] == ["5", "6"]
    assert [open_run(path).test_top1 for path in paths] == found.figures()
    times = [(path / "weights.safetensors").stat().st_mtime_ns for path in paths]

    more = reproduce(tiny, count=3, folder=folder)
    assert more.runs[:2] == found.runs
    assert [(path / "weights.safetensors").stat().st_mtime_ns for path in paths] == times
    assert "seed 5: complete already" in capsys.readouterr().err
    values = json.loads((folder / JSON_FILE).read_text())
    assert values == more.to_json()
    assert values["n"] == 3
    assert values["measures"] == "accuracy on test images, looked at once"
    assert Image.open(folder / PLOT_FILE).format == "PNG"

    reproduce(tiny, count=2, folder=folder)
    said = capsys.readouterr().err
    assert f"not counted, though complete in {folder}: seed 7; with more --runs they count" in said

    with pytest.raises(RecipeError) as caught:
        reproduce(recipe("epochs=2", "training.seed=5"), count=3, folder=folder)
    assert str(caught.value) == (
        f"{folder} holds runs of another recipe: training.epochs 1 -> 2; take back the change, or name another folder: "
        "--into DIR"
    )


def test_a_killed_run_is_gone_on_with(recipe: MakeRecipe, tmp_path: Path, start: Callable[..., Started]) -> None:
    tiny, folder = recipe("epochs=4"), tmp_path / "one"
    path = tmp_path / "tiny.toml"
    path.write_text(dump_recipe(tiny))
    process = start("reproduce", path, "--runs", "1", "--into", folder, cwd=tmp_path)
    process.wait_until(lambda: list(folder.glob("seed-0/*/checkpoints/last.safetensors")))
    process.send(signal.SIGKILL)
    assert process.wait() == -9
    found = reproduce(tiny, count=1, folder=folder)
    assert len(found.figures()) == 1
    (run,) = folder.glob("seed-0/*")
    assert len(open_run(run).legs) == 2


def test_a_run_that_diverged_is_counted_and_the_others_go_on(recipe: MakeRecipe, tmp_path: Path) -> None:
    wild = recipe("epochs=3", "learning_rate=1e18", "model.gate=original")
    found = reproduce(wild, count=2, folder=tmp_path / "wild")
    assert [run.test_top1 for run in found.runs] == [None, None]
    assert found.to_json()["mean"] is None
    assert "all 2 runs diverged" in reproduction_table(found)


def test_no_run_at_all(recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--runs 0 found, at least 1 expected"):
        reproduce(recipe(), count=0, folder=tmp_path)


def test_a_folder_that_cannot_be_made(recipe: MakeRecipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--into .*/file/x: cannot be written to \(Not a directory\)"):
        reproduce(recipe(), count=1, folder=tmp_path / "file" / "x")


def test_mean_spread_and_interval() -> None:
    figures = (89.0, 90.0, 90.5, 88.5)
    found = finished(*figures)
    assert found.mean() == pytest.approx(89.5)
    assert found.sd() == pytest.approx(math.sqrt(sum((x - 89.5) ** 2 for x in figures) / 3))
    expected = scipy.stats.ttest_1samp(figures, 0).confidence_interval(0.95)
    assert found.interval() == pytest.approx((expected.low, expected.high))
    assert finished(50.0, 100.0).interval() == (0.0, 100.0)
    same = finished(75.0, 75.0, 75.0)
    assert (same.sd(), same.interval()) == (0.0, None)
    assert "mean 75.00 %, all the same, which says nothing about the spread; n = 3" in reproduction_table(same)
    assert reproduction_png(same)
    one = finished(89.0)
    assert (one.mean(), one.sd(), one.interval()) == (89.0, None, None)


def test_the_interval_holds_what_it_promises() -> None:
    """Of a thousand experiments of five runs, 95 % must cover the true mean: 930 to 970 are four deviations of that."""
    import numpy as np

    draws = np.random.default_rng(0).normal(90, 0.7, (1000, 5))
    covered = 0
    for row in draws:
        low, high = finished(*row.tolist()).interval() or (0, 0)
        covered += low <= 90 <= high
    assert 922 <= covered <= 978


def test_the_table_fits_and_says_what_its_figures_are() -> None:
    text = reproduction_table(finished(89.0, 90.0, None, published=PUBLISHED["cifar10"]))
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    assert "mean 89.50 %, standard deviation 0.71 points, 95 % interval of the mean 83.15 to 95.85" in flat
    assert "1 of 3 runs diverged and are not in it; n = 2 runs. This is accuracy on test images, looked at once" in flat
    assert "published: 89.45 %: accuracy on test images that also stopped the training and chose its weights" in flat
    aircraft = " ".join(reproduction_table(finished(80.0, published=PUBLISHED["aircraft"])).split())
    assert "published: 97.27 %: accuracy on training images" in aircraft
    assert "also says 99.7" in aircraft


def test_the_image_can_be_drawn_with_few_runs_and_with_none() -> None:
    for found in (finished(), finished(None), finished(90.0), finished(90.0, 91.0, published=PUBLISHED["cifar10"])):
        assert reproduction_png(found).startswith(b"\x89PNG")
