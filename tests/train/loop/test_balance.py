"""Uneven classes: the loss's weights, and how often the images of a class come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from samdeploy.errors import RecipeError
from samdeploy.train.loop.balance import class_shares, class_weights
from samdeploy.train.loop.seeds import Shuffle
from samdeploy.train.loop.train import train
from samdeploy.train.recipe.recipe import DataSection, Recipe

COUNTS = np.array([90, 9, 1])
LABELS = torch.from_numpy(np.repeat(np.arange(3), COUNTS))


@pytest.mark.parametrize("kind", ["balanced", "effective"])
def test_weights_have_a_mean_of_one_over_the_images(kind: str) -> None:
    weights = class_weights(DataSection(class_weights=kind), COUNTS)  # type: ignore[arg-type]
    assert weights is not None
    assert float(weights[LABELS].mean()) == pytest.approx(1)
    ratio = 10.0 if kind == "balanced" else (1 - 0.999**90) / (1 - 0.999**9)
    assert float(weights[1] / weights[0]) == pytest.approx(ratio, rel=1e-5)
    assert class_weights(DataSection(), COUNTS) is class_shares(DataSection(), COUNTS) is None


@pytest.mark.parametrize(
    ("sampling", "expected"), [("balanced", [33, 34, 33]), ("square_root", [70, 23, 7])], ids=lambda value: str(value)
)
def test_an_epoch_holds_the_shares_and_repeats_evenly(sampling: str, expected: list[int]) -> None:
    shares = class_shares(DataSection(sampling=sampling), COUNTS)  # type: ignore[arg-type]
    assert shares is not None
    shuffle = Shuffle(1)
    rows = shuffle.sampled(LABELS, shares)
    assert torch.bincount(LABELS[rows]).tolist() == expected
    times = torch.bincount(rows, minlength=100)[90:99]  # each image of the second class
    assert int(times.max() - times.min()) <= 1
    assert not torch.equal(rows, shuffle.sampled(LABELS, shares))
    shuffle.restore(shuffle.state(before=True))
    again = Shuffle(1)
    assert torch.equal(again.sampled(LABELS, shares), rows)
    assert torch.equal(again.sampled(LABELS, shares), shuffle.sampled(LABELS, shares))


def test_both_at_once_are_refused(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="class_weights and sampling found, one of the two ways"):
        train(recipe("data.class_weights=balanced", "data.sampling=balanced"), runs_root=tmp_path)
