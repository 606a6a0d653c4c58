"""One image and many: what `predict`, `predict_batch` and `stream` give."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy import Classifier, Prediction
from samdeploy.bundle import Bundle
from samdeploy.bundle.answers import Calibration, Rejection
from samdeploy.errors import ImageError, InputError
from samdeploy.images.formats import EXPECTED
from tests.classifier.conftest import IMAGES, same


def test_a_prediction_is_whole(classifier: Classifier) -> None:
    found = classifier.predict(IMAGES[0], top=3)
    assert found.logits.dtype == np.float32 and found.logits.shape == (len(classifier.classes),)
    assert found.index == int(found.logits.argmax()) and found.label == classifier.classes[found.index]
    assert found.top[0] == (found.label, found.probability) and len(found.top) == 3
    assert [share for _, share in found.top] == sorted((share for _, share in found.top), reverse=True)
    assert found.to_json() == {
        "label": found.label,
        "index": found.index,
        "probability": found.probability,
        "rejected": False,
        "top": [{"label": label, "probability": share} for label, share in found.top],
    }
    assert json.loads(json.dumps(found.to_json())) == found.to_json()
    everything = classifier.predict(IMAGES[0], top=99)
    assert len(everything.top) == len(classifier.classes)
    assert sum(share for _, share in everything.top) == pytest.approx(1.0, abs=1e-12)


def test_temperature_and_threshold_change_no_class(digits_bundle: Bundle, classifier: Classifier) -> None:
    calibration, rejection = Calibration(2.0, 300, 1, 1, 1, 1), Rejection(0.5, 2, 1, 80, 300)
    without = replace(digits_bundle, calibration=None)
    for temperature, bundle in ((1.0, without), (2.0, replace(without, calibration=calibration))):
        found = Classifier(bundle, classifier.session).predict_batch(IMAGES[:4])
        for one, plain in zip(found, classifier.predict_batch(IMAGES[:4]), strict=True):
            assert one.index == plain.index and np.array_equal(one.logits, plain.logits) and not one.rejected
            shares = np.exp(one.logits.astype(float) / temperature)
            assert one.probability == pytest.approx(shares.max() / shares.sum(), rel=1e-12)
    sure = sorted(answer.probability for answer in found)
    at_limit = replace(bundle, rejection=replace(rejection, threshold=sure[2]))
    found = Classifier(at_limit, classifier.session).predict_batch(IMAGES[:4])
    assert [answer.rejected for answer in found] == [answer.probability < sure[2] for answer in found]
    assert sum(answer.rejected for answer in found) == 2


def test_of_equal_logits_the_lower_index_comes_first(digits_bundle: Bundle) -> None:
    class Even:
        backend, device, precision = "onnxruntime", "cpu", "fp32"

        def run(self, batch: np.ndarray) -> np.ndarray:
            return np.tile(np.array([1, 5, 5, 0, 5, 1, 1, 1, 1, 1], np.float32), (len(batch), 1))

        def close(self) -> None: ...

    found = Classifier(digits_bundle, Even()).predict(IMAGES[0])
    assert [int(label) for label, _ in found.top] == [1, 2, 4, 0, 5]
    assert found.top[0][1] == found.top[2][1]


def test_all_kinds_of_sources_give_the_same(classifier: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(IMAGES[3])
    with Image.open(path) as opened:
        sources = [path, str(path), IMAGES[3], opened.copy(), np.array(opened)]
    found = classifier.predict_batch(sources)
    same(found, [classifier.predict(path)] * 5)
    same(list(classifier.stream(sources, batch=5)), found)


@pytest.mark.parametrize("batch", [1, 7, 16])
def test_stream_gives_what_predict_gives(classifier: Classifier, expected: list[Prediction], batch: int) -> None:
    found = list(classifier.stream(IMAGES, batch=batch, top=2))
    same(found, expected)
    assert all(len(prediction.top) == 2 for prediction in found)


def test_grey_in_an_array(classifier: Classifier) -> None:
    grey = np.arange(20 * 30, dtype=np.uint8).reshape(20, 30)
    assert classifier.predict(grey) == classifier.predict(np.repeat(grey[:, :, None], 3, axis=2))


def test_stream_of_arrays_in_one_array(classifier: Classifier) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 30, 20, 3), dtype=np.uint8)
    same(list(classifier.stream(images)), classifier.predict_batch(images))


def test_a_broken_image_ends_a_stream_after_those_before_it(classifier: Classifier, tmp_path: Path) -> None:
    sources = [*IMAGES[:5], IMAGES[5][:100], *IMAGES[6:]]
    found = []
    with pytest.raises(ImageError, match=r"^image 5 of the stream: image: damaged or truncated"):
        for prediction in classifier.stream(sources, batch=4):
            found.append(prediction)  # noqa: PERF402 - extend would lose what came before the exception
    same(found, classifier.predict_batch(IMAGES[:5]))


def test_or_is_given_in_its_place(classifier: Classifier, expected: list[Prediction], tmp_path: Path) -> None:
    sources: list[bytes | Path] = [*IMAGES]
    sources[5], sources[6], sources[39] = b"", tmp_path / "none.jpg", b"x"
    found = list(classifier.stream(sources, batch=4, on_error="yield"))
    errors = {place: str(answer) for place, answer in enumerate(found) if isinstance(answer, ImageError)}
    assert errors == {
        5: "image 5 of the stream: image: the file is empty; expected an image",
        6: f"{tmp_path / 'none.jpg'}: no such file",
        39: f"image 39 of the stream: image: not an image that samdeploy reads; {EXPECTED}",
    }
    good = [place for place in range(40) if place not in errors]
    same([found[place] for place in good], [expected[place] for place in good])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"batch": 0}, "batch: 0 found, at least 1 expected"),
        ({"top": 0}, "top: 0 found, at least 1 expected"),
        ({"threads": 0}, "threads: 0 found, at least 1 expected"),
        ({"batch": 2.0}, "batch: 2.0 (float) found, a whole number expected"),
        ({"top": "3"}, "top: '3' (str) found, a whole number expected"),
        ({"top": True}, "top: True (bool) found, a whole number expected"),
        ({"on_error": None}, "on_error: NoneType found, a name expected. Valid: raise, yield"),
        ({"on_error": "yeild"}, "unknown on_error 'yeild'; did you mean 'yield'? Valid: raise, yield"),
    ],
)
def test_wrong_arguments_are_refused_at_once(classifier: Classifier, arguments: dict[str, object], text: str) -> None:
    with pytest.raises(InputError) as caught:
        classifier.stream(IMAGES, **arguments)  # type: ignore[call-overload]
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ("photo.jpg", "str"), (b"JPEG", "bytes"), (Path("photo.jpg"), "PosixPath"), (None, "NoneType"),
        (np.zeros((8, 8, 3), np.uint8), "an array [8, 8, 3]"),
    ],
)  # fmt: skip
def test_one_image_where_many_are_expected(classifier: Classifier, sources: object, found: str) -> None:
    for method in (classifier.stream, classifier.predict_batch):
        with pytest.raises(InputError) as caught:
            method(sources)  # type: ignore[operator]
        assert str(caught.value) == (
            f"{method.__name__}: {found} found, several images expected, such as a list; for one image: predict"
        )
