"""What eval refuses before an engine runs: changed files, other images, mistaken options."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from samdeploy.bundle import Bundle, open_bundle
from samdeploy.errors import BundleError, Contradiction, InputError
from samdeploy.evaluate import EvalOptions, evaluate_bundle

pytestmark = pytest.mark.usefixtures("short_latency")


def test_a_changed_file_is_found_before_anything_runs(copy_of_bundle: Path) -> None:
    path = copy_of_bundle / "model.fp16.onnx"  # that no engine of this evaluation would open
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"'model\.fp16\.onnx' has SHA-256"):
        evaluate_bundle(open_bundle(copy_of_bundle), EvalOptions(backend="onnxruntime"))


def test_images_of_another_data_set_are_refused(digits_bundle: Bundle) -> None:
    spec = dataclasses.replace(digits_bundle.spec, classes=tuple("abcdefghij"))
    with pytest.raises(Contradiction) as caught:
        evaluate_bundle(dataclasses.replace(digits_bundle, spec=spec), EvalOptions(backend="pytorch"))
    assert str(caught.value.__cause__).startswith(
        "data set 'digits' has 10 classes, the bundle was trained on 10: the bundle does not know '0', '1', '2', '3', "
        "'4' and 5 more; the data set lacks 'a', 'b', 'c', 'd', 'e' and 5 more. The data set's names never change: the "
        "list in the bundle's manifest was changed; make the bundle again: samdeploy export"
    )


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ("0123456798", "the same in another order: class 8 is '8', '9' expected. Their order follows from the"),
        ("012345678", "has 10 classes, the bundle was trained on 9: the bundle does not know '9'."),
        ("0123456789a", "has 10 classes, the bundle was trained on 11: the data set lacks 'a'."),
        ("012345678b", "trained on 10: the bundle does not know '9'; the data set lacks 'b'."),
    ],
)
def test_classes_that_are_extra_or_missing_are_named(digits_bundle: Bundle, classes: str, said: str) -> None:
    spec = dataclasses.replace(digits_bundle.spec, classes=tuple(classes))
    with pytest.raises(Contradiction) as caught:
        evaluate_bundle(dataclasses.replace(digits_bundle, spec=spec), EvalOptions(backend="pytorch"))
    assert said in str(caught.value.__cause__)


def test_other_test_images_are_said(digits_bundle: Bundle) -> None:
    for fingerprints, said in (
        ({"test": "0" * 64}, "differs from the one at training"),
        ({}, "not recorded at training"),
    ):
        data = dataclasses.replace(digits_bundle.data, fingerprints=fingerprints)
        changed = dataclasses.replace(digits_bundle, data=data, measured=None)
        report = evaluate_bundle(changed, EvalOptions(backend="onnxruntime"))
        assert report.test_set == said


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"backend": "onnx"}, "unknown backend 'onnx'; did you mean 'onnxruntime'? Valid: pytorch,"),
        ({"precision": "half"}, "unknown precision 'half'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"margin": 0.0}, "--margin: 0 found, points above 0 and below 100 expected (no images can"),
        ({"margin": -1.0}, "--margin: -1 found"),
        ({"margin": 100.0}, "--margin: 100 found"),
        ({"margin": math.nan}, "--margin: nan found"),
        ({"confidence": 95.0}, "confidence 95 found, at least 0.5 and below 1 expected (for 95 %: 0.95)"),
        ({"confidence": 1.0}, "confidence 1 found, at least 0.5 and below 1 expected"),
        ({"confidence": 0.4}, "confidence 0.4 found"),
        ({"confidence": math.nan}, "confidence nan found"),
    ],
)
def test_mistakes_are_refused_before_anything_is_opened(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as caught:
        EvalOptions(**options)
    assert text in str(caught.value)


def test_a_cure_is_not_refused_in_its_turn() -> None:
    with pytest.raises(InputError) as caught:
        EvalOptions(confidence=1.5)  # 0.015 would be too small
    assert str(caught.value) == "confidence 1.5 found, at least 0.5 and below 1 expected"


def test_a_device_that_one_engine_never_has(digits_bundle: Bundle) -> None:
    """TensorRT never runs on a CPU: one row of "all", and a mistake where it was named."""
    report = evaluate_bundle(digits_bundle, EvalOptions(device="cpu"))
    assert report.passed
    assert report.results[-1].reason == "backend 'tensorrt' runs on cuda, not on 'cpu'"
    assert not report.results[-1].passed
    with pytest.raises(InputError, match="backend 'tensorrt' runs on cuda"):
        evaluate_bundle(digits_bundle, EvalOptions(backend="tensorrt", device="cpu"))
