"""Images of which two are broken, and what labels them in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from samdeploy import Classifier
from samdeploy.bundle import Bundle
from samdeploy.label.options import LabelOptions

if TYPE_CHECKING:
    from samdeploy.label.summary import Summary

COUNT, ROWS = 53, 10
Label = Callable[..., "Summary"]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty-three files, of which numbers 7 and 31 are no images; names in natural order."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(COUNT):
        path = folder / f"image {number}.png"
        if number in (7, 31):
            path.write_bytes(b"no image")
        else:
            pixels = random.integers(0, 256, (20 + number % 5, 30, 3), np.uint8)
            Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture(scope="session")
def classifier(digits_bundle: Bundle) -> Classifier:
    """Of the digits, in ONNX Runtime."""
    pytest.importorskip("onnxruntime", reason="pip install 'samdeploy[onnxruntime]'")
    return Classifier.open(digits_bundle.root, "onnxruntime")


@pytest.fixture
def labelled(classifier: Classifier, images: Path) -> Label:
    """`labelled(out, input, **options)`: label, in parts of `ROWS` rows."""
    from samdeploy.label.label import label

    def run(out: Path, given: str | Path = images, **options: Any) -> Summary:
        return label(classifier, LabelOptions(str(given), out, **{"rows": ROWS, "batch": 4, **options}))

    return run
