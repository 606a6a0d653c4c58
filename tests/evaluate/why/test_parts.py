"""The parts of an explanation: which images, how far off, what was done to the pixels; and its place in `eval`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from samdeploy.bundle import Bundle
from samdeploy.bundle.spec import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from samdeploy.evaluate import EvalOptions, evaluate_bundle
from samdeploy.evaluate.test_set.open import TestSet, open_test_set
from samdeploy.evaluate.why.explain import worst_images
from samdeploy.evaluate.why.pixels import normalisation_fault
from samdeploy.evaluate.why.tensors import error_share
from samdeploy.files import json_bytes
from samdeploy.report.text.evaluation import evaluation_tables
from tests.evaluate import faults
from tests.evaluate.departures import Seal, one_weight


def test_worst_images() -> None:
    reference = np.zeros((6, 3), np.float32)
    logits = reference.copy()
    logits[4, 1], logits[1, 0], logits[2, 2], logits[5, 0] = np.nan, 3, -7, 0.5
    assert worst_images(logits, reference, 3).tolist() == [1, 2, 4]
    assert worst_images(logits, reference, 99).tolist() == [0, 1, 2, 3, 4, 5]
    assert worst_images(logits, reference, 2, allowed=2).tolist() == [1, 5]
    reference[2] = [0, 700, 0]  # seven of seven hundred
    assert worst_images(logits + reference, reference, 3).tolist() == [1, 4, 5]


def test_error_share() -> None:
    expected = np.array([[-1, 3]], np.float32)
    assert error_share(expected + np.float32(0.5), expected) == 0.125
    assert error_share(np.array([[2, 2]], np.float32), np.array([[4, 4]], np.float32)) == 0.5  # no range: its size
    assert error_share(np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32)) == 0
    assert error_share(np.array([[np.nan, 3]], np.float32), expected) == np.inf
    assert error_share(expected[:, :1], expected) == np.inf
    # [n, C, h, w]: each image on its own scale, 8 and 800.
    examples = np.array([[0, 8], [0, 8], [0, 800]], np.float32).reshape(3, 2, 1, 1)
    found = examples.copy()
    found[0, 0], found[2, 0] = 1, 8
    assert error_share(found, examples) == 0.125


def normalised(pixels: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    shape = (1, 3, 1, 1)
    return ((pixels / 255 - np.reshape(mean, shape)) / np.reshape(std, shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda pixels: pixels, "missing: the engine takes pixels of 0 to 255 as they are"),
        (lambda pixels: pixels / 255, "missing: the engine takes pixels of 0 to 1;"),
        (lambda pixels: normalised(pixels[:, ::-1], IMAGENET_MEAN, IMAGENET_STD), "takes red for blue"),
        (lambda pixels: normalised(pixels, IMAGENET_MEAN[::-1], IMAGENET_STD[::-1]), "takes red for blue"),
        (lambda pixels: normalised(pixels, (0.5,) * 3, (0.5,) * 3), "the engine has mean (0.500, 0.500, 0.500)"),
        (lambda pixels: normalised(pixels**1.5, IMAGENET_MEAN, IMAGENET_STD), "no multiple of them plus a constant"),
    ],
)  # fmt: skip
def test_what_an_engine_does_to_coloured_pixels(make: Callable[[np.ndarray], np.ndarray], words: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8)).astype(np.float32)
    text = normalisation_fault(pixels, np.float32(make(pixels)), Preprocessing(8, 8), 1e-4)
    assert words in text, text


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first 60 test images, for what is not about all of them."""

    def few(bundle: Bundle, data_root: Path | None) -> TestSet:
        found = open_test_set(bundle, data_root)
        return TestSet(found.samples.take(np.arange(60)), found.notes)

    monkeypatch.setattr("samdeploy.evaluate.evaluate.open_test_set", few)


@pytest.mark.usefixtures("short_latency", "few_images")
def test_eval_says_why(copy_of_bundle: Path, seal: Seal) -> None:
    faults.edit_graph(copy_of_bundle, one_weight)
    options = EvalOptions(backend="onnxruntime", device="cpu", consistency_s=0, why=True)
    bundle = seal(copy_of_bundle)
    assert "why" not in evaluate_bundle(bundle, replace(options, why=False)).results[0].parts
    report = evaluate_bundle(bundle, options)
    assert not report.passed
    values = json.loads(json_bytes(report.to_json()))["results"][0]["why"]
    assert (values["first"], values["n_images"]) == ("layer2.0.conv2", 4)
    assert "the first tensor of onnxruntime fp32 that departs from the network is layer2.0.conv2" in " ".join(
        evaluation_tables(report).split()
    )


@pytest.mark.usefixtures("short_latency", "few_images")
def test_an_engine_that_passes_needs_no_explanation(digits_bundle: Bundle) -> None:
    options = EvalOptions(backend="onnxruntime", device="cpu", consistency_s=0, why=True)
    report = evaluate_bundle(digits_bundle, options)
    assert report.passed and "why" not in report.results[0].parts
