"""What an inconsistent engine does is named: batch sizes, positions, answers that change."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from samdeploy.evaluate.consistency.run import check_consistency
from tests.evaluate.consistency.linear import Linear, images

__all__ = ["images"]


@pytest.mark.parametrize(
    ("is_wrong", "text"),
    [
        (lambda batch: np.full(len(batch), len(batch) == 32), "wrong at batch size 32, in every row; worst at "),
        (lambda batch: np.full(len(batch), len(batch) > 50), "wrong at batch size 64, 128, in every row; worst at "),
        (lambda batch: np.arange(len(batch)) == 20, "wrong at batch size 24, 32, 64, 128, in 4 of 248 rows; worst at "),
        (lambda batch: np.arange(len(batch)) > 100, "wrong at batch size 128, in 27 of 128 rows; worst at "),
    ],
    ids=["one size", "all above 50", "row 20", "rows above 100"],
)
def test_wrong_in_large_batches_alone(images: np.ndarray, is_wrong: Callable[..., np.ndarray], text: str) -> None:
    def spoil(batch: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return logits + np.where(is_wrong(batch)[:, None], np.float32(1e-2 * np.ptp(logits)), np.float32(0))

    found = check_consistency(lambda: Linear(spoil), Linear(spoil), images, large=(24, 32, 64, 128), repeats_wanted=5)
    assert [check.name for check in found.failures] == ["large batches"], found.checks
    assert found.failures[0].detail.startswith(text)
    assert found.batch_sizes == (*range(1, 18), 24, 32, 64, 128)


@pytest.mark.parametrize("size", [1, 2, 9, 15, 16, 17])
def test_a_batch_size_is_named(images: np.ndarray, size: int) -> None:
    def spoil(batch: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return logits * np.float32(1.001) if len(batch) == size else logits

    found = check_consistency(lambda: Linear(spoil), Linear(spoil), images, repeats_wanted=5)
    (failed,) = found.failures
    assert failed.name == "batch sizes"
    assert failed.detail.startswith(f"wrong at batch size {size}, in every row; worst at batch size {size}, position ")
    assert 3e-4 < failed.worst < 2e-3
    assert found.verdict.startswith("NOT CONSISTENT: batch sizes: wrong at batch size")
    assert not found.passed and not found.to_json()["passed"]


@pytest.mark.parametrize("position", [1, 7, 14])
def test_a_position_is_named(images: np.ndarray, position: int) -> None:
    def spoil(batch: np.ndarray, logits: np.ndarray) -> np.ndarray:
        logits[position : position + 1] *= np.float32(1.001)
        return logits

    found = check_consistency(lambda: Linear(spoil), Linear(spoil), images, repeats_wanted=5)
    failed = {check.name: check for check in found.failures}
    assert set(failed) == {"equal images", "positions", "shuffled order"}
    assert failed["positions"].detail.startswith(f"wrong at position {position}; worst at batch size ")
    assert failed["positions"].detail.endswith(f", position {position}")


def test_an_answer_that_is_written_again_is_wrong_however_little(images: np.ndarray) -> None:
    """No rounding excuses it: the last bit of the answer before is changed."""
    given: list[np.ndarray] = []

    def spoil(batch: np.ndarray, logits: np.ndarray) -> np.ndarray:
        for before in given:
            before[:] = np.nextafter(before, np.inf, dtype=np.float32)
        given[:] = [logits]
        return logits

    found = check_consistency(Linear, Linear(spoil), images, repeats_wanted=5)
    assert [(check.name, check.allowed) for check in found.failures] == [("kept answers", 0.0)]
    assert 0 < found.failures[0].worst < 1e-6


def test_a_fault_found_before_the_time_is_up_is_a_fault(images: np.ndarray) -> None:
    def spoil(batch: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return logits * np.float32(np.nan if len(batch) == 16 else 1)

    found = check_consistency(Linear, Linear(spoil), images, limit_s=0.0)
    outcomes = {check.name: check.outcome for check in found.checks}
    # The first run of each check is made in any case; that of "equal images" is the largest batch.
    assert outcomes["equal images"] == outcomes["two threads"] == "failed"
    assert outcomes["batch sizes"] == outcomes["repeats"] == "not finished"
    (equal,) = (check for check in found.failures if check.name == "equal images")
    assert equal.worst == math.inf
    assert equal.detail.startswith("wrong at batch size 16, in every row; worst at batch size 16, position 0; 15 of 16")
    assert found.verdict.startswith("NOT CONSISTENT: ")


def test_answers_that_do_not_tell_images_apart_prove_nothing(images: np.ndarray) -> None:
    def forget(batch: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return np.tile(np.arange(10, dtype=np.float32), (len(batch), 1))

    found = check_consistency(lambda: Linear(forget), Linear(forget), images, repeats_wanted=5)
    assert not found.passed and not found.failures
    assert "the images' answers differ by 0.0e+00 of their range" in found.unfinished[0].detail
