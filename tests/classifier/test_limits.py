"""Limits, and what is refused when a classifier is opened."""

from __future__ import annotations

import io
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy import Classifier
from samdeploy.bundle import Bundle
from samdeploy.bundle.spec import MAX_BYTES, MAX_PIXELS
from samdeploy.errors import ImageError, InputError


def test_the_limit_on_pixels(open_one: Callable[..., Classifier]) -> None:
    classifier = open_one(max_pixels=1000)
    assert classifier.predict(np.zeros((25, 40, 3), np.uint8)).label
    with pytest.raises(ImageError, match="image array: too many pixels"):  # as `samdeploy_prepare_rgb` has it in C
        classifier.predict(np.zeros((400, 400, 3), np.uint8))
    image = Image.new("RGB", (40, 25))
    assert classifier.predict(image).label
    buffer = io.BytesIO()
    Image.new("RGB", (41, 25)).save(buffer, "PNG")
    text = (
        "too many pixels, scale it down first (41x25 are 1,025, at most 1,000 are decoded; "
        "only Classifier.open(max_pixels=) and serve --max-pixels change that)"
    )
    for use in (
        classifier.predict,
        lambda one: classifier.predict_batch([one]),
        lambda one: list(classifier.stream([one])),
    ):
        with pytest.raises(ImageError) as caught:
            use(buffer.getvalue())
        assert str(caught.value).endswith(text)


def test_the_limit_on_bytes(open_one: Callable[..., Classifier], tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.new("RGB", (40, 25)).save(path)
    length = path.stat().st_size
    assert open_one(max_bytes=length).predict(path).label
    for source, name in ((path, str(path)), (path.read_bytes(), "image")):
        with pytest.raises(ImageError) as caught:
            open_one(max_bytes=length - 1).predict(source)
        text = (
            f"{name}: {length} bytes are too many, at most {length - 1} are read; only Classifier.open(max_bytes=) and "
            "serve --max-bytes change that"
        )
        assert str(caught.value) == text


def test_the_limits_are_the_specifications(open_one: Callable[..., Classifier]) -> None:
    assert open_one().max_pixels == MAX_PIXELS == 178_956_970
    assert open_one().max_bytes == MAX_BYTES == 67_108_864


@pytest.mark.parametrize("name", ["max_pixels", "max_bytes"])
@pytest.mark.parametrize("limit", [0, -1, np.int64(0)])
def test_no_limit_is_no_number(open_one: Callable[..., Classifier], name: str, limit: int) -> None:
    with pytest.raises(InputError, match=f"^{name}: {limit} found, at least 1 expected$"):
        open_one(**{name: limit})


def test_what_comes_from_a_request_is_a_text(open_one: Callable[..., Classifier]) -> None:
    with pytest.raises(InputError, match=r"^max_pixels: '9' \(str\) found, a whole number expected$"):
        open_one(max_pixels="9")
    classifier = open_one()
    for top in ("3", 3.0, True, None):
        with pytest.raises(InputError, match=r"^top: .* found, a whole number expected$"):
            classifier.predict(Image.new("RGB", (40, 25)), top=top)  # type: ignore[arg-type]
    assert len(classifier.predict(Image.new("RGB", (40, 25)), top=np.int64(3)).top) == 3  # type: ignore[arg-type]


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


@pytest.mark.parametrize(
    ("path", "found"), [(None, "NoneType"), (b"bundle", "bytes"), (3, "int")], ids=["None", "bytes", "a number"]
)
def test_what_is_no_path(path: object, found: str) -> None:
    with pytest.raises(InputError) as caught:
        Classifier.open(path)  # type: ignore[arg-type]
    assert str(caught.value) == f"path: {found} found, a bundle's folder expected, as str or pathlib.Path"


@pytest.mark.parametrize(("trust", "found"), [(b"mine.pub", "bytes"), (5, "int")], ids=["bytes", "a number"])
def test_what_is_no_key(digits_bundle: Bundle, trust: object, found: str) -> None:
    with pytest.raises(InputError) as caught:
        Classifier.open(digits_bundle.root, trust=trust)  # type: ignore[arg-type]
    assert str(caught.value) == f"trust: {found} found, a public key's file expected, as str or pathlib.Path"


def test_whatever_names_a_path(digits_bundle: Bundle) -> None:
    class Named:
        def __fspath__(self) -> str:
            return str(digits_bundle.root)

    with Classifier.open(Named(), "onnxruntime") as classifier:
        assert len(classifier.classes) == 10


def test_auto_is_a_backend_too(digits_bundle: Bundle) -> None:
    with pytest.raises(InputError, match="unknown backend 'aut'; did you mean 'auto'"):
        Classifier.open(digits_bundle.root, "aut")


def test_a_batch_that_no_memory_holds(open_one: Callable[..., Classifier]) -> None:
    classifier = open_one()
    for batch in (10**10, 10**30):
        with pytest.raises(InputError, match=rf"^batch: {batch} found; the images of one batch would take .* MiB"):
            list(classifier.stream([Image.new("RGB", (40, 25))], batch=batch))
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("samdeploy-")] == []


def test_bytes_in_any_buffer(open_one: Callable[..., Classifier]) -> None:
    classifier, content = open_one(), io.BytesIO()
    Image.new("RGB", (40, 25), "white").save(content, "PNG")
    expected = classifier.predict(content.getvalue())
    for buffer in (bytearray(content.getvalue()), memoryview(content.getvalue())):
        assert classifier.predict(buffer) == expected
    with pytest.raises(ImageError, match=r"'a\\x00b': no path has a zero byte in it"):
        classifier.predict("a\0b")


def test_predictions_can_be_compared_and_counted(open_one: Callable[..., Classifier]) -> None:
    classifier, image = open_one(), Image.new("RGB", (40, 25))
    one, other = classifier.predict(image), classifier.predict(image)
    assert one == other and len({one, other}) == 1
