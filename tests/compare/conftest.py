"""Bundles that answer as the digits' network does, or almost; and its test images as files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy.bundle import Bundle, open_bundle
from samdeploy.data import open_dataset

DIGITS = tuple(map(str, range(10)))


@pytest.fixture(scope="session")
def rewired(digits_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """`rewired(columns, classes)`: the bundle's FP32 graph with logit i taken from column `columns[i]`.

    Its golden logits are changed alike, so that opening it finds nothing wrong.
    """
    onnx = pytest.importorskip("onnx")
    from samdeploy.export.pack import BundleWriter

    def make(columns: Sequence[int], classes: tuple[str, ...] = DIGITS) -> Bundle:
        root = tmp_path_factory.mktemp("rewired") / "bundle"
        root.mkdir()
        graph = onnx.load_from_string(digits_bundle.read(digits_bundle.find("graph", precision="fp32")))
        last = next(node for node in graph.graph.node if "logits" in node.output)
        last.output[list(last.output).index("logits")] = "before"
        graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array(columns, np.int64), "columns"))
        graph.graph.node.append(onnx.helper.make_node("Gather", ["before", "columns"], ["logits"], axis=1))
        spec = replace(
            digits_bundle.spec,
            classes=classes,
            output=replace(digits_bundle.spec.output, shape=("N", len(classes))),
        )
        writer = BundleWriter(root, spec, digits_bundle.data, {})
        images, logits = digits_bundle.golden()
        writer.add_array("golden_images", "golden/images.npy", images)
        writer.add_array("golden_logits", "golden/logits.npy", np.ascontiguousarray(logits[:, list(columns)]))
        writer.add("graph", "model.fp32.onnx", graph.SerializeToString(), precision="fp32")
        writer.write_manifest()
        return open_bundle(root)

    return make


@pytest.fixture(scope="session")
def worse_bundle(rewired: Callable[..., Bundle]) -> Bundle:
    """It takes every 9 for another digit: the two logits of 8 and 9 are both 8's, and the first one wins."""
    return rewired([*range(9), 8])


@pytest.fixture(scope="session")
def permuted_bundle(rewired: Callable[..., Bundle]) -> Bundle:
    """The same network with its classes in another order."""
    return rewired([*range(9, -1, -1)], DIGITS[::-1])


def write_digits(folder: Path, split: str, count: int, bundle: Bundle) -> Path:
    """The first `count` images of a split below `folder`, in a folder for each class."""
    data = bundle.data
    samples = open_dataset("digits", val_fraction=data.val_fraction, seed=data.split_seed).split(split)
    for index in range(count):
        path = folder / DIGITS[samples.labels[index]] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(samples.load(index)).save(path)
    return folder


@pytest.fixture(scope="session")
def labelled(digits_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty of the test digits, in class folders."""
    return write_digits(tmp_path_factory.mktemp("labelled"), "test", 60, digits_bundle)
