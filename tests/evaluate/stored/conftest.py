"""The test digits as files, and their labels by each engine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pip install 'samdeploy[label]'")

import numpy as np
import onnx
import onnx.numpy_helper
from PIL import Image

from samdeploy import Classifier
from samdeploy.bundle import Bundle
from samdeploy.bundle.names import MANIFEST
from samdeploy.data import open_dataset
from samdeploy.export.int8.qdq import calibrate, quantize
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


@pytest.fixture(scope="module")
def reference(narrow: None, digits_bundle: Bundle, digit_files: Path, labelled: Callable[..., Path]) -> Path:
    """What the trained network answers to `digit_files`.  Do not write into it."""
    return labelled(digits_bundle, digit_files, "pytorch", logits="float32", rows=150)


@pytest.fixture(scope="session")
def engine(digits_bundle: Bundle, digit_files: Path, labelled: Callable[..., Path]) -> Path:
    """What ONNX Runtime answers, in parts of another length.  Do not write into it."""
    pytest.importorskip("onnxruntime", reason="pip install 'samdeploy[onnxruntime]'")
    return labelled(digits_bundle, digit_files, "onnxruntime", logits="float32", rows=70)


@pytest.fixture(scope="session")
def leaning_bundle(
    digits_bundle: Bundle, seal: Callable[[Path], Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """With an INT8 graph that favours one class, so that the classes of some images change."""
    root = tmp_path_factory.mktemp("leaning") / "bundle"
    shutil.copytree(digits_bundle.root, root)
    golden, logits = digits_bundle.golden()
    model = onnx.load(str(root / "model.fp32.onnx"))
    (bias,) = [weight for weight in model.graph.initializer if weight.name == "head.bias"]
    values = onnx.numpy_helper.to_array(bias).copy()
    values[8] += 0.03 * np.ptp(logits)  # the check of the golden images allows 20 % in all
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    (root / "model.int8.onnx").write_bytes(quantize(calibrate(model.SerializeToString(), golden), "cpu"))
    manifest = json.loads((root / MANIFEST).read_text())
    graph = {"role": "graph", "path": "model.int8.onnx", "sha256": "", "bytes": 0, "precision": "int8", "built_for": {}}
    manifest["files"].append({**graph, "backend": None})
    (root / MANIFEST).write_text(json.dumps(manifest))
    return seal(root)
