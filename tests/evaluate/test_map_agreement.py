"""Rank correlation of maps: right where there is an order, and silent where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from samdeploy.backends import open_session
from samdeploy.bundle import Bundle
from samdeploy.errors import InputError
from samdeploy.evaluate.map_agreement import MAX_IMAGES, CamAgreement, compare_cams, rank_correlation

RAMP = np.arange(12, dtype=np.float32).reshape(3, 4)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    (value,) = rank_correlation(np.asarray(a, np.float32)[None], np.asarray(b, np.float32)[None])
    return float(value)


def test_known_values() -> None:
    assert correlation(RAMP, 5 * RAMP - 3) == pytest.approx(1)
    assert correlation(RAMP, np.exp(RAMP)) == pytest.approx(1)  # any map with the same order
    assert correlation(RAMP, -RAMP) == pytest.approx(-1)
    # By hand: ranks 1 2 3 4 against 1 2 4 3; 1 - 6 * 2 / (4 * 15) = 0.8.
    assert correlation([[1, 2], [3, 4]], [[1, 2], [4, 3]]) == pytest.approx(0.8)
    # Equal values share a rank: 1.5 1.5 3 4 against 1 2 3 4, Pearson's correlation of the ranks.
    expected = np.corrcoef([1.5, 1.5, 3, 4], [1, 2, 3, 4])[0, 1]
    assert correlation([[1, 1], [3, 4]], [[1, 2], [3, 4]]) == pytest.approx(expected)


def test_every_image_has_its_own() -> None:
    found = rank_correlation(np.stack([RAMP, RAMP, RAMP]), np.stack([RAMP, -RAMP, np.ones_like(RAMP)]))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [1, -1, np.nan])


@pytest.mark.parametrize(
    "cam",
    [
        np.ones((3, 4)),
        np.zeros((3, 4)),
        1 + 1e-7 * RAMP,  # ranks of rounding errors
        np.where(RAMP == 5, np.nan, RAMP),
        np.where(RAMP == 5, np.inf, RAMP),
    ],
)
def test_a_map_without_order_has_no_correlation(cam: np.ndarray) -> None:
    assert np.isnan(correlation(cam, RAMP))
    assert np.isnan(correlation(RAMP, cam))
    assert np.isnan(correlation(cam, cam))  # and two dead engines do not agree


def test_one_cell_has_no_correlation() -> None:
    assert np.isnan(correlation(np.array([[1.0]]), np.array([[1.0]])))


def test_wrong_shapes() -> None:
    with pytest.raises(InputError, match=r"maps: \[1, 3, 4\] and \[1, 4, 3\] found"):
        rank_correlation(RAMP[None], RAMP.T[None])
    with pytest.raises(InputError, match=r"\[n, h, w\] twice expected"):
        rank_correlation(RAMP, RAMP)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """uint8 [70, 96, 64, 3], in blocks of a colour"""
    blocks = np.random.default_rng(13).integers(0, 256, (70, 12, 8, 3), dtype=np.uint8)
    return blocks.repeat(8, axis=1).repeat(8, axis=2)


class _Mirrored:
    """An engine whose maps are the wrong way round, and whose logits are right."""

    def __init__(self, session) -> None:
        self._session = session

    def run_with_maps(self, batch):
        logits, maps = self._session.run_with_maps(batch)
        return logits, np.ascontiguousarray(maps[:, :, ::-1, ::-1])


def test_an_honest_engine_and_one_whose_maps_are_mirrored(cam_bundle: Bundle, images: np.ndarray) -> None:
    with (
        open_session(cam_bundle, "pytorch", device="cpu", maps=True) as reference,
        open_session(cam_bundle, "onnxruntime", device="cpu", maps=True) as engine,
    ):
        honest = compare_cams(reference, engine, images)
        mirrored = compare_cams(reference, _Mirrored(engine), images[:8])
    assert (honest.images, honest.defined, honest.cells, honest.reason) == (MAX_IMAGES, MAX_IMAGES, (3, 2), "")
    assert honest.minimum is not None and honest.median is not None
    assert honest.minimum > 0.9 and honest.median == pytest.approx(1)
    assert mirrored.images == 8
    assert mirrored.median is not None and mirrored.median < 0.5


def test_digits_at_32_pixels_have_maps_of_one_cell(digits_bundle: Bundle) -> None:
    with (
        open_session(digits_bundle, "pytorch", device="cpu", maps=True) as reference,
        open_session(digits_bundle, "onnxruntime", device="cpu", maps=True) as engine,
    ):
        found = compare_cams(reference, engine, digits_bundle.golden()[0])
    images = len(digits_bundle.golden()[0])
    assert found == CamAgreement(images=images, defined=0, cells=(1, 1), minimum=None, median=None)
    assert found.reason == "maps of one cell have no order; train at more than 32 pixels to have larger ones"
    assert found.to_json() == {
        "images": images, "defined": 0, "cells": [1, 1], "min": None, "median": None, "reason": found.reason
    }  # fmt: skip


def test_some_maps_without_order() -> None:
    found = CamAgreement(images=10, defined=7, cells=(2, 2), minimum=0.5, median=0.9)
    assert found.reason == "3 of 10 maps are constant and have no order"
