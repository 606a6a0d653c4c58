"""One pass through one engine: all images in order, and a clear word where it ends early."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from samdeploy.data import fingerprint
from samdeploy.data.images import Fingerprint
from samdeploy.errors import BackendUnavailable, DatasetError
from samdeploy.evaluate.passes import EngineStopped, engine_pass, reference_pass
from samdeploy.evaluate.test_set.prepared import PreparedImages

IMAGES = np.random.default_rng(0).integers(0, 256, (150, 2, 2, 3), dtype=np.uint8)


class Summing:
    """Two logits per image: the sums of its first and of all its bytes; dies at a batch if told to."""

    backend, device, precision = "onnxruntime", "cpu", "fp32"

    def __init__(self, dies_at: int | None = None, error: BaseException | None = None) -> None:
        self._left, self._error = dies_at, error

    def run(self, batch: np.ndarray) -> np.ndarray:
        if self._left is not None:
            self._left -= 1
            if self._left == 0 and self._error:
                raise self._error
        flat = batch.reshape(len(batch), -1).astype(np.float32)
        return np.stack([flat[:, 0], flat.sum(axis=1)], axis=1)

    def close(self) -> None: ...


EXPECTED = Summing().run(IMAGES)


@pytest.fixture
def examples() -> Iterator[PreparedImages]:
    with PreparedImages(150, 2, 2) as opened:
        opened.append(IMAGES)
        yield opened


def test_engine_pass(examples: PreparedImages) -> None:
    logits = engine_pass(Summing(), examples, 2, "summing")
    assert logits.dtype == np.float32
    assert np.array_equal(logits, EXPECTED)


def test_the_reference_pass_keeps_the_images_and_their_fingerprint() -> None:
    labels = np.arange(150)
    with PreparedImages(150, 2, 2) as examples:
        digest = Fingerprint(examples.shape)
        logits = reference_pass(Summing(), (IMAGES[:70], IMAGES[70:]), examples, digest, 2)
        assert np.array_equal(np.concatenate(list(examples.batches(64))), IMAGES)
    assert np.array_equal(logits, EXPECTED)
    assert digest.hexdigest(labels) == fingerprint(IMAGES, labels)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BackendUnavailable("the GPU fell\n  off the bus"), "the GPU fell off the bus"),
        (RuntimeError("kernel failed"), "RuntimeError: kernel failed"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_an_engine_that_dies(examples: PreparedImages, error: Exception, said: str) -> None:
    with pytest.raises(EngineStopped) as caught:
        engine_pass(Summing(3, error), examples, 2, "summing")
    assert str(caught.value) == f"stopped after 128 of 150 images: {said}"
    assert caught.value.n_images_done == 128
    with pytest.raises(EngineStopped):
        reference_pass(Summing(1, error), [IMAGES], examples, Fingerprint(examples.shape), 2)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143)])
def test_an_interrupt_is_no_failure_of_the_engine(examples: PreparedImages, error: BaseException) -> None:
    with pytest.raises(type(error)):
        engine_pass(Summing(2, error), examples, 2, "summing")


def test_a_broken_image_is_no_failure_of_the_engine(examples: PreparedImages) -> None:
    def blocks() -> Iterator[np.ndarray]:
        yield IMAGES[:10]
        raise DatasetError("image 10 is broken")

    with pytest.raises(DatasetError, match="image 10 is broken"):
        reference_pass(Summing(), blocks(), examples, Fingerprint(examples.shape), 2)


def test_logits_of_another_shape(examples: PreparedImages) -> None:
    with pytest.raises(EngineStopped) as caught:
        engine_pass(Summing(), examples, 3, "summing")
    assert str(caught.value) == "stopped after 0 of 150 images: logits [64, 2] found, [64, 3] expected"
