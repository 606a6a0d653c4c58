"""What applications do with a `Classifier`: many pictures, many threads, asyncio, forks, limits, closing."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy import Classifier, Prediction
from samdeploy.backends import availability
from samdeploy.bundle import Bundle
from samdeploy.errors import ImageError, InputError, SamdeployError
from samdeploy.spec import MAX_PIXELS

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


PICTURES = [jpeg(number) for number in range(40)]


@pytest.fixture(scope="module", params=BACKENDS)
def classifier(request: pytest.FixtureRequest, digits_bundle: Bundle) -> Iterator[Classifier]:
    reason = availability(request.param)
    if reason:
        pytest.skip(reason)
    with Classifier.open(digits_bundle.root, request.param, device="cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def expected(classifier: Classifier) -> list[Prediction]:
    """Of `PICTURES`, one after another in one thread."""
    return [classifier.predict(picture) for picture in PICTURES]


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


# --- one picture ------------------------------------------------------------------------------------------------------


def test_a_prediction_is_whole(classifier: Classifier) -> None:
    found = classifier.predict(PICTURES[0], top=3)
    assert found.logits.dtype == np.float32 and found.logits.shape == (len(classifier.classes),)
    assert found.index == int(found.logits.argmax()) and found.label == classifier.classes[found.index]
    assert found.top[0] == (found.label, found.probability) and len(found.top) == 3
    assert [share for _, share in found.top] == sorted((share for _, share in found.top), reverse=True)
    assert found.to_json() == {
        "label": found.label,
        "index": found.index,
        "probability": found.probability,
        "top": [{"label": label, "probability": share} for label, share in found.top],
    }
    assert json.loads(json.dumps(found.to_json())) == found.to_json()
    everything = classifier.predict(PICTURES[0], top=99)
    assert len(everything.top) == len(classifier.classes)
    assert sum(share for _, share in everything.top) == pytest.approx(1.0, abs=1e-12)


def test_of_equal_logits_the_lower_index_comes_first(digits_bundle: Bundle) -> None:
    class Even:
        backend, device, precision = "onnxruntime", "cpu", "fp32"

        def run(self, batch: np.ndarray) -> np.ndarray:
            return np.tile(np.array([1, 5, 5, 0, 5, 1, 1, 1, 1, 1], np.float32), (len(batch), 1))

        def close(self) -> None: ...

    found = Classifier(digits_bundle, Even()).predict(PICTURES[0])
    assert [int(label) for label, _ in found.top] == [1, 2, 4, 0, 5]
    assert found.top[0][1] == found.top[2][1]


def test_all_kinds_of_sources_give_the_same(classifier: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(PICTURES[3])
    with Image.open(path) as opened:
        sources = [path, str(path), PICTURES[3], opened.copy(), np.array(opened)]
    found = classifier.predict_batch(sources)
    same(found, [classifier.predict(path)] * 5)
    same(list(classifier.stream(sources, batch=5)), found)


# --- many pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 7, 16])
def test_stream_gives_what_predict_gives(classifier: Classifier, expected: list[Prediction], batch: int) -> None:
    found = list(classifier.stream(PICTURES, batch=batch, top=2))
    same(found, expected)
    assert all(len(prediction.top) == 2 for prediction in found)


def test_stream_of_arrays_in_one_array(classifier: Classifier) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 30, 20, 3), dtype=np.uint8)
    same(list(classifier.stream(images)), classifier.predict_batch(images))


def test_a_broken_picture_ends_a_stream_after_those_before_it(classifier: Classifier, tmp_path: Path) -> None:
    sources = [*PICTURES[:5], PICTURES[5][:100], *PICTURES[6:]]
    found = []
    with pytest.raises(ImageError, match=r"^picture 5 of the stream: image: damaged or truncated"):
        for prediction in classifier.stream(sources, batch=4):
            found.append(prediction)  # noqa: PERF402 - extend would lose what came before the exception
    same(found, classifier.predict_batch(PICTURES[:5]))


def test_or_is_given_in_its_place(classifier: Classifier, expected: list[Prediction], tmp_path: Path) -> None:
    sources: list[bytes | Path] = [*PICTURES]
    sources[5], sources[6], sources[39] = b"", tmp_path / "none.jpg", b"x"
    found = list(classifier.stream(sources, batch=4, on_error="yield"))
    errors = {place: str(answer) for place, answer in enumerate(found) if isinstance(answer, ImageError)}
    assert errors == {
        5: "picture 5 of the stream: image: the file is empty; expected a picture",
        6: f"{tmp_path / 'none.jpg'}: no such file",
        39: "picture 39 of the stream: image: not a picture, or of a kind that Pillow cannot read",
    }
    good = [place for place in range(40) if place not in errors]
    same([found[place] for place in good], [expected[place] for place in good])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"batch": 0}, "batch: 0 found, at least 1 expected"),
        ({"top": 0}, "top: 0 found, at least 1 expected"),
        ({"threads": 0}, "threads: 0 found, at least 1 expected"),
        ({"on_error": "yeild"}, "unknown on_error 'yeild'; did you mean 'yield'? Valid: raise, yield"),
    ],
)
def test_wrong_arguments_are_refused_at_once(classifier: Classifier, arguments: dict[str, object], text: str) -> None:
    with pytest.raises(InputError) as caught:
        classifier.stream(PICTURES, **arguments)  # type: ignore[call-overload]
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ("photo.jpg", "str"), (b"JPEG", "bytes"), (Path("photo.jpg"), "PosixPath"), (None, "NoneType"),
        (np.zeros((8, 8, 3), np.uint8), "an array [8, 8, 3]"),
    ],
)  # fmt: skip
def test_one_picture_where_many_are_expected(classifier: Classifier, sources: object, found: str) -> None:
    for method in (classifier.stream, classifier.predict_batch):
        with pytest.raises(InputError) as caught:
            method(sources)  # type: ignore[operator]
        assert str(caught.value) == (
            f"{method.__name__}: {found} found, several pictures expected, such as a list; for one picture: predict"
        )


# --- threads, asyncio, forks ------------------------------------------------------------------------------------------


def test_many_threads_get_the_answers_of_one(classifier: Classifier, expected: list[Prediction]) -> None:
    start = threading.Barrier(THREADS)

    def work(_: int) -> list[Prediction]:
        start.wait()
        return [classifier.predict(picture) for picture in PICTURES]

    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(work, range(THREADS)):
            for one, other in zip(found, expected, strict=True):
                assert one.label == other.label
                assert one.probability == other.probability
                np.testing.assert_array_equal(one.logits, other.logits)


def test_streams_beside_one_another(classifier: Classifier, expected: list[Prediction]) -> None:
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda batch: list(classifier.stream(PICTURES, batch=batch)), (3, 8, 16, 40)):
            same(found, expected)


def test_asyncio_waits_in_threads(classifier: Classifier, expected: list[Prediction]) -> None:
    beats = 0

    async def heart() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.001)
            beats += 1

    async def main() -> list[Prediction]:
        beating = asyncio.create_task(heart())
        found = await asyncio.gather(*(asyncio.to_thread(classifier.predict, picture) for picture in PICTURES * 3))
        beating.cancel()
        return found

    same(asyncio.run(main()), expected * 3)
    assert beats > 3  # the loop was not held up


def test_a_cancelled_wait_leaves_the_classifier_sound(classifier: Classifier, expected: list[Prediction]) -> None:
    async def main() -> list[Prediction]:
        waiting = [asyncio.create_task(asyncio.to_thread(classifier.predict, picture)) for picture in PICTURES]
        await asyncio.sleep(0)
        for task in waiting[::2]:
            task.cancel()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(answer, asyncio.CancelledError) for answer in found[::2])
        same(found[1::2], expected[1::2])
        return [await asyncio.to_thread(classifier.predict, picture) for picture in PICTURES]

    same(asyncio.run(main()), expected)


def test_closing_while_others_predict(open_one: Callable[..., Classifier]) -> None:
    """Answers that were under way come, whole; whoever comes later is told that it is closed; nothing crashes."""
    for _ in range(3):
        classifier = open_one()
        expected: list[object] = [prediction.logits for prediction in classifier.predict_batch(PICTURES[:4])]
        outcomes: list[str] = []

        def work(
            classifier: Classifier = classifier, expected: list[object] = expected, outcomes: list[str] = outcomes
        ) -> None:
            while True:
                try:
                    answers = [classifier.predict(picture).logits for picture in PICTURES[:4]]
                except SamdeployError as error:
                    outcomes.append(f"{type(error).__name__}: {error}")
                    return
                np.testing.assert_allclose(answers, expected, atol=TOLERANCE * np.ptp(expected))  # type: ignore[arg-type]

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        classifier.close()
        for thread in threads:
            thread.join(30)
        text = f"InputError: this {classifier.session.backend} session is closed; open another with Classifier.open()"
        assert outcomes == [text] * THREADS


def test_a_closed_classifier_says_so(open_one: Callable[..., Classifier]) -> None:
    classifier = open_one()
    running = classifier.stream(PICTURES, batch=2)
    next(running)
    classifier.close()
    classifier.close()
    for use in (
        lambda: classifier.predict(PICTURES[0]),
        lambda: classifier.predict_batch(PICTURES),
        lambda: classifier.stream(PICTURES),
        lambda: list(running),
    ):
        with pytest.raises(InputError, match="session is closed"):
            use()
    assert classifier.predict_batch([]) == []
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("samdeploy-")] == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_must_open_its_own(classifier: Classifier, expected: list[Prediction]) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        lines = []
        try:
            for use in (classifier.predict, lambda one: classifier.stream([one])):
                try:
                    use(PICTURES[0])
                except InputError as error:
                    lines.append(str(error))
            classifier.close()
            lines.append("closed")
            os.write(writing, "\n".join(lines).encode())
        finally:
            os._exit(0)  # as multiprocessing does
    os.close(writing)
    with os.fdopen(reading) as pipe:
        lines = pipe.read().splitlines()
    os.waitpid(child, 0)
    text = (
        f"this {classifier.session.backend} session was opened in process {os.getpid()} and is used in its fork {child}"
    )
    assert len(lines) == 3 and lines[2] == "closed"
    assert all(line.startswith(text) and "call Classifier.open() in each process" in line for line in lines[:2])
    same([classifier.predict(PICTURES[0])], expected[:1])  # what the child did is nothing to the parent


# --- limits -----------------------------------------------------------------------------------------------------------


def test_the_limit_on_pixels(open_one: Callable[..., Classifier]) -> None:
    classifier = open_one(max_pixels=1000)
    assert classifier.predict(np.zeros((400, 400, 3), np.uint8)).label  # in memory already
    picture = Image.new("RGB", (40, 25))
    assert classifier.predict(picture).label
    buffer = io.BytesIO()
    Image.new("RGB", (41, 25)).save(buffer, "PNG")
    text = (
        "too many pixels, scale it down first (41x25 are 1,025, at most 1,000 are decoded; max_pixels sets the limit)"
    )
    for use in (
        classifier.predict,
        lambda one: classifier.predict_batch([one]),
        lambda one: list(classifier.stream([one])),
    ):
        with pytest.raises(ImageError) as caught:
            use(buffer.getvalue())
        assert str(caught.value).endswith(text)


def test_the_limit_is_the_specifications(open_one: Callable[..., Classifier]) -> None:
    assert open_one().max_pixels == MAX_PIXELS == 178_956_970


@pytest.mark.parametrize("limit", [0, -1])
def test_no_limit_is_no_number(open_one: Callable[..., Classifier], limit: int) -> None:
    with pytest.raises(InputError, match=f"^max_pixels: {limit} found, at least 1 expected$"):
        open_one(max_pixels=limit)


def test_a_classifier_is_not_pickled(digits_bundle: Bundle) -> None:
    with (
        Classifier.open(digits_bundle.root, "onnxruntime") as classifier,
        pytest.raises(TypeError, match="open the bundle in each process"),
    ):
        pickle.dumps(classifier)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [({"device": "gpu"}, "did you mean 'cuda'"), ({"precision": "float16"}, "did you mean 'fp16'")],
)
def test_an_unknown_name_is_one_error_and_not_one_per_runtime(
    digits_bundle: Bundle, wrong: dict[str, str], text: str
) -> None:
    with pytest.raises(InputError, match=text):
        Classifier.open(digits_bundle.root, **wrong)  # type: ignore[arg-type]
