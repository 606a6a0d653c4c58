"""The test digits as files, and their labels by each engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pip install 'samdeploy[label]'")

from PIL import Image

from samdeploy import Classifier
from samdeploy.bundle import Bundle
from samdeploy.data import open_dataset
from samdeploy.label.label import label
from samdeploy.label.options import LabelOptions


@pytest.fixture(scope="session")
def digit_files(digits_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test images that training measured, in class folders.  Do not write into it."""
    data = digits_bundle.data
    found = open_dataset("digits", val_fraction=data.val_fraction, seed=data.split_seed)
    folder = tmp_path_factory.mktemp("digits")
    for index, target in enumerate(found.test.labels):
        path = folder / found.classes[target] / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(found.test.load(index)).save(path)
    return folder


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Called with a bundle, an input and an engine: a new folder of labels."""

    def run(bundle: Bundle, given: Path, backend: str, precision: str = "fp32", **options: object) -> Path:
        out = tmp_path_factory.mktemp("labels") / f"{backend}-{precision}"
        with Classifier.open(bundle.root, backend, precision=precision, device="cpu") as classifier:
            assert label(classifier, LabelOptions(str(given), out, **options)).whole  # type: ignore[arg-type]
        return out

    return run


@pytest.fixture(scope="session")
def reference(digits_bundle: Bundle, digit_files: Path, labelled: Callable[..., Path]) -> Path:
    """What the trained network answers to `digit_files`.  Do not write into it."""
    return labelled(digits_bundle, digit_files, "pytorch", logits="float32", rows=150)


@pytest.fixture(scope="session")
def engine(digits_bundle: Bundle, digit_files: Path, labelled: Callable[..., Path]) -> Path:
    """What ONNX Runtime answers, in parts of another length.  Do not write into it."""
    pytest.importorskip("onnxruntime", reason="pip install 'samdeploy[onnxruntime]'")
    return labelled(digits_bundle, digit_files, "onnxruntime", logits="float32", rows=70)
