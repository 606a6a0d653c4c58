"""An image that drives the network out of the numbers' range: without squashing its logits are no numbers.

No class is named then, in Python as in C++ (tests/cpp/test_examples.py), and the other images have their answers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy import AnswerError, Classifier, ImageError, Prediction
from tests.classifier.conftest import IMAGES

# Of a network that has seen grey digits alone.
RED = Image.new("RGB", (40, 25), "red")
WORDS = "10 of 10 logits are not finite numbers: the image drives the network out of the range of fp32; "
CURE = "the network has no answer to it"


@pytest.fixture
def red(classifier: Classifier, tmp_path: Path) -> Path:
    assert not np.isfinite(classifier.session.run(classifier.prepare(RED)[None])).any()
    RED.save(tmp_path / "red.png")
    return tmp_path / "red.png"


def test_one_image(classifier: Classifier, red: Path) -> None:
    with pytest.raises(AnswerError) as caught:
        classifier.predict(red)
    assert str(caught.value) == f"{red}: {WORDS}{CURE}"
    with pytest.raises(AnswerError) as caught:
        classifier.predict(RED)
    assert str(caught.value) == f"image: {WORDS}{CURE}"


def test_one_among_many(classifier: Classifier, expected: list[Prediction], red: Path) -> None:
    images = [*IMAGES[:5], red, RED, *IMAGES[5:9]]
    found = list(classifier.stream(images, batch=8, on_error="yield"))
    errors = {place: str(answer) for place, answer in enumerate(found) if isinstance(answer, ImageError)}
    assert errors == {5: f"{red}: {WORDS}{CURE}", 6: f"image 6 of the stream: {WORDS}{CURE}"}
    answers = [answer.label for answer in found if isinstance(answer, Prediction)]
    assert answers == [answer.label for answer in expected[:9]]
    streamed = classifier.stream(images)
    assert [next(streamed).label for _ in range(5)] == answers[:5]
    with pytest.raises(AnswerError):
        next(streamed)
    with pytest.raises(AnswerError, match=f"^{red}: "):
        classifier.predict_batch(images)
    with pytest.raises(AnswerError, match=r"^image 1 of 2: 10 of 10 logits"):
        classifier.predict_prepared(np.stack([classifier.prepare(IMAGES[0]), classifier.prepare(RED)]))


def test_a_narrower_precision_names_the_wider_one(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.array([[1, 2, np.inf] + [0] * 7, [3, 1] + [0] * 8], np.float32)
    monkeypatch.setattr(classifier.session, "run", lambda _: logits)
    monkeypatch.setattr(classifier.session, "precision", "fp16")
    first, second = classifier.stream([IMAGES[0], IMAGES[1]], on_error="yield")
    assert isinstance(second, Prediction) and second.index == 0
    assert str(first) == (
        "image 0 of the stream: 1 of 10 logits are not finite numbers: the image drives the network out of the "
        "range of fp16; open the bundle in fp32"
    )
