"""A classifier of every CPU runtime that is here, images, and their answers."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from PIL import Image

from samdeploy import Classifier, Prediction
from samdeploy.backends import availability
from samdeploy.bundle import Bundle

BACKENDS = ("onnxruntime", "openvino", "pytorch")
# Another batch size sums in another order.
TOLERANCE = 1e-5
THREADS = 8


def jpeg(number: int) -> bytes:
    generator = np.random.default_rng(number)
    height, width = (int(side) for side in generator.integers(20, 60, 2))
    buffer = io.BytesIO()
    Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


IMAGES = [jpeg(number) for number in range(40)]


@pytest.fixture(scope="module", params=BACKENDS)
def classifier(request: pytest.FixtureRequest, digits_bundle: Bundle) -> Iterator[Classifier]:
    reason = availability(request.param)
    if reason:
        pytest.skip(reason)
    with Classifier.open(digits_bundle.root, request.param, device="cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def expected(classifier: Classifier) -> list[Prediction]:
    """Of `IMAGES`, one after another in one thread."""
    return [classifier.predict(image) for image in IMAGES]


@pytest.fixture
def open_one(digits_bundle: Bundle) -> Iterator[Callable[..., Classifier]]:
    """A classifier of its own for a test that closes it, on the first CPU runtime that is here."""
    opened: list[Classifier] = []

    def make(**options: int) -> Classifier:
        backend = next(name for name in BACKENDS if not availability(name))
        opened.append(Classifier.open(digits_bundle.root, backend, device="cpu", **options))  # type: ignore[arg-type]
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def same(found: Sequence[object], expected: Sequence[Prediction]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, Prediction)
        assert (one.label, one.index) == (other.label, other.index)
        np.testing.assert_allclose(one.logits, other.logits, rtol=0, atol=TOLERANCE * np.ptp(other.logits))
