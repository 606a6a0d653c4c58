"""What an engine is asked: which images, at which batch sizes and positions."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from samdeploy.bundle import Bundle
from samdeploy.bundle.manifest import BundleFile
from samdeploy.evaluate.consistency import questions
from samdeploy.evaluate.consistency.run import different_images, larger_batches, largest_batch
from tests.evaluate.consistency.linear import Linear, images

__all__ = ["images"]


def test_batches_beyond_memory_are_not_asked() -> None:
    assert larger_batches(np.zeros((1, 32, 32, 3), np.uint8), 16) == (24, 32, 48, 64, 96, 128)
    assert larger_batches(np.zeros((1, 448, 448, 3), np.uint8), 16) == (24, 32, 48, 64)
    assert larger_batches(np.zeros((1, 32, 32, 3), np.uint8), 8) == ()


def test_every_size_and_position_is_asked(images: np.ndarray) -> None:
    """Counted where the engine stands: each position of the largest batch sees seven images."""
    shown: dict[int, set[bytes]] = {}

    def watch(batch: np.ndarray, logits: np.ndarray) -> np.ndarray:
        for position, image in enumerate(batch):
            shown.setdefault(position, set()).add(image.tobytes())
        return logits

    examined = questions.Examined(Linear(watch), different_images(images, questions.images_for(16)), 16)
    probe = questions.sizes_and_positions(examined, math.inf)
    assert {row.size for row in probe.answers.departures().rows} == set(range(1, 18))
    assert min(len(shown[position]) for position in range(16)) >= 7


def test_the_ends_come_first() -> None:
    examined = questions.Examined(Linear(), np.zeros((0, 8, 8, 3), np.uint8), 16)
    assert examined.sizes()[:3] == [1, 16, 17]
    assert sorted(examined.sizes()) == list(range(1, 18))


def test_few_images_become_many_different_ones(images: np.ndarray) -> None:
    made = different_images(images[:2], 34)
    assert made.shape == (34, 8, 8, 3) and made.dtype == np.uint8
    assert len({image.tobytes() for image in made}) == 34
    assert {image.tobytes() for image in images[:2]} <= {image.tobytes() for image in made}
    for image in made:  # moved pixels only: no value that the image did not have
        assert any(np.array_equal(np.sort(image, axis=None), np.sort(other, axis=None)) for other in images[:2])


def test_many_images_are_spread_and_equal_ones_used_once(images: np.ndarray) -> None:
    np.testing.assert_array_equal(different_images(images, 3), images[[0, 20, 39]])
    doubled = np.repeat(images[:4], 2, axis=0)
    assert len({image.tobytes() for image in different_images(doubled, 8)}) == 8


def test_images_of_one_colour_are_repeated() -> None:
    assert different_images(np.full((1, 4, 4, 3), 7, np.uint8), 5).tolist() == [[[[7] * 3] * 4] * 4] * 5


def test_the_largest_batch_is_that_of_the_profile(digits_bundle: Bundle) -> None:
    assert largest_batch(digits_bundle, "onnxruntime", "fp32") == 16
    engine = BundleFile("engine", "a.plan", "0" * 64, 1, "tensorrt", "fp16", {"batch": "1,8,32"})
    bundle = dataclasses.replace(digits_bundle, files=(engine,))
    assert largest_batch(bundle, "tensorrt", "fp16") == 32
    assert largest_batch(bundle, "tensorrt", "fp32") == 16
    no_batch = dataclasses.replace(engine, built_for={})
    assert largest_batch(dataclasses.replace(bundle, files=(no_batch,)), "tensorrt", "fp16") == 16
