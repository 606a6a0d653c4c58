"""A model while it is served: its golden images, its names."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("prometheus_client", reason="pip install 'samdeploy[serve]'")

from samdeploy import Classifier
from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.bundle import Bundle
from samdeploy.errors import AnswerError, InputError
from samdeploy.serve.errors import RequestError
from samdeploy.serve.metrics import Metrics
from samdeploy.serve.models import Models, read_place
from samdeploy.serve.served import Limits, Place, ServedModel

FAR = float("inf")


class Drifting:
    """An engine that begins to answer otherwise."""

    backend, device, precision = "onnxruntime", "cpu", "fp32"

    def __init__(self, classifier: Classifier) -> None:
        self._session = classifier.session
        self.off = 0.0

    def run(self, batch: UInt8Array) -> Float32Array:
        return self._session.run(batch) + np.float32(self.off) * np.arange(10, dtype=np.float32)

    def close(self) -> None:
        self._session.close()


def test_readiness_goes_and_comes_with_the_golden_images(
    digits_bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnxruntime", reason="pip install 'samdeploy[onnxruntime]'")
    engine = Drifting(Classifier.open(digits_bundle.root, "onnxruntime"))
    metrics = Metrics()
    model = ServedModel(Place("digits", "1", digits_bundle.root), Classifier(digits_bundle, engine), Limits(), metrics)
    images = digits_bundle.golden()[0]

    async def answer() -> Float32Array:
        return await model.infer(images, FAR)

    with pytest.raises(RequestError, match="model 'digits' is not ready: the golden images have not been run yet"):
        asyncio.run(answer())
    for off, ready in ((0.0, True), (0.5, False), (0.0, True)):
        engine.off = off
        with caplog.at_level(logging.INFO, "samdeploy.serve"):
            model.self_test()
            model.self_test()  # says nothing new
        assert model.ready is ready
        assert f'samdeploy_ready{{model="digits",version="1"}} {ready:.1f}' in metrics.text().decode()
        golden = 'samdeploy_golden_difference{model="digits",version="1"} +Inf'
        assert (golden in metrics.text().decode()) is not ready
        if ready:
            assert asyncio.run(answer()).shape == (len(images), 10)
        else:
            with pytest.raises(RequestError, match="this is not the model of this bundle") as caught:
                asyncio.run(answer())
            assert caught.value.status == 503
    said = [record.getMessage() for record in caplog.records]
    assert [text.startswith("digits:1 is ready") for text in said] == [True, False, True]
    engine.off = float("nan")
    with pytest.raises(AnswerError, match="logits are not finite numbers"):
        asyncio.run(model.answer(images, None, ThreadPoolExecutor()))
    model.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("runs/a b/bundle", ("a-b", "1", "runs/a b/bundle")),
        ("cats=x/y=z", ("cats", "1", "x/y=z")),
        ("cats:7=x", ("cats", "7", "x")),
        ("x/y=z", ("y-z", "1", "x/y=z")),  # a path with an equals sign
    ],
)
def test_names(text: str, expected: tuple[str, str, str]) -> None:
    place = read_place(text)
    assert (place.name, place.version, place.path) == (expected[0], expected[1], Path(expected[2]))


@pytest.mark.parametrize(
    ("text", "message"),
    [("cats:v 1=x", "version 'v 1' found; a letter or digit"), ("=x", "=x: no name found before '='; NAME=PATH")],
)
def test_a_name_that_no_address_can_have(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_place(text)


def test_the_highest_version_is_offered_first() -> None:
    places = [("a", "2"), ("b", "1"), ("a", "10"), ("a", "9")]
    models = Models([SimpleNamespace(name=name, version=version) for name, version in places])  # type: ignore[misc]
    assert [(one.name, one.version) for one in models.newest_first] == [("a", "10"), ("a", "9"), ("a", "2"), ("b", "1")]


def test_other_answers_than_those_to_validation_are_seen(digits_bundle: Bundle) -> None:
    pytest.importorskip("onnxruntime", reason="pip install 'samdeploy[onnxruntime]'")
    answered = digits_bundle.answered
    assert answered is not None and sum(answered.labels) == sum(answered.confidence) > 100
    usual = np.repeat(np.arange(10), answered.labels)
    for answers, has_drifted in ((usual, False), (np.full(len(usual), 3), True)):
        metrics = Metrics()
        classifier = Classifier.open(digits_bundle.root, "onnxruntime")
        model = ServedModel(Place("digits", "1", digits_bundle.root), classifier, Limits(), metrics)
        model._count(np.eye(10, dtype=np.float32)[answers] * 20)
        drift, above = (
            getattr(metrics, name).labels("digits", "1", "labels")._value.get()
            for name in ("drift", "drift_above_chance")
        )
        assert (drift > 0.25, above > 0) == (has_drifted, has_drifted)
        model.close()
