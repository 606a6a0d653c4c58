"""The order in which an engine reads channels, told from a few images and their twins."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from samdeploy.backends.channels import channel_twins, order_read
from samdeploy.backends.difference import image_ranges
from samdeploy.export.golden_colour import with_colour

Answer = Callable[[np.ndarray], np.ndarray]
GREY = np.repeat(np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), dtype=np.uint8), 3, axis=3)


def looks_at(red: float, green: float, blue: float) -> Answer:
    """A network of two classes: a weighted sum of the pixels of each half."""
    weights = np.array([red, green, blue])

    def answer(images: np.ndarray) -> np.ndarray:
        halves = [(half.astype(np.float64) @ weights).mean(axis=(1, 2)) for half in (images[:, :2], images[:, 2:])]
        return np.stack(halves, axis=1).astype(np.float32)

    return answer


def read(golden: np.ndarray, answer: Answer, order: tuple[int, ...], error: float = 0.0) -> str:
    expected = answer(golden)
    ranges = image_ranges(expected)
    noise = np.random.default_rng(1).uniform(-error, error, expected.shape) * ranges[:, None]
    found = (answer(golden[..., order]) + noise).astype(np.float32)
    return order_read(found, expected, ranges, channel_twins(golden))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_every_order_is_told(order: tuple[int, ...]) -> None:
    answer = looks_at(1.0, 0.3, -0.4)
    golden = with_colour(GREY, answer)
    assert golden.shape == (12, 4, 4, 3)
    name = "".join("RGB"[channel] for channel in order)
    for error in (0.0, 0.02):  # as FP32 and as INT8
        assert read(golden, answer, order, error) == ("" if name == "RGB" else name)


def test_an_honest_engine_is_not_accused_where_the_network_sees_no_colour(capsys: pytest.CaptureFixture[str]) -> None:
    answer = looks_at(1.0, 1.0, 1.0)
    golden = with_colour(GREY, answer)
    assert "opening an engine will not show exchanged channels" in capsys.readouterr().err
    for error in (0.0, 1e-6, 0.05, 0.5):
        assert read(golden, answer, (0, 1, 2), error) == ""


def test_grey_images_have_no_twins() -> None:
    assert channel_twins(GREY) == []
