"""`samdeploy label --features`: what the last linear layer of the trained network reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="pip install 'samdeploy[label]'")
pytest.importorskip("onnx", reason="pip install 'samdeploy[export]'")
pytest.importorskip("torch", reason="pip install 'samdeploy[export]'")

import onnx
import pyarrow.parquet as pq
import torch

from samdeploy import Classifier
from samdeploy.backends.pytorch import trained_network
from samdeploy.bundle import Bundle
from samdeploy.errors import InputError
from samdeploy.label.label import label
from samdeploy.label.options import LabelOptions
from samdeploy.models import Exported
from tests.label.conftest import Label
from tests.label.read import table

# Sums of 512 numbers in another order, as a share of the largest feature.
SAME = 1e-4


def trained_features(bundle: Bundle, classifier: Classifier, paths: list[Path]) -> np.ndarray:
    """What PyTorch's last linear layer reads, float32 [N, C]."""
    network, _ = trained_network(bundle, "cpu")
    read: list[torch.Tensor] = []
    linear = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
    linear.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0].clone()))
    with torch.inference_mode():
        Exported(network.eval(), bundle.spec)(torch.from_numpy(np.stack([classifier.prepare(path) for path in paths])))
    return read[-1].numpy()


@pytest.mark.parametrize("name", ["digits_bundle", "timm_bundle"])
def test_features_are_the_trained_networks(
    name: str, request: pytest.FixtureRequest, images: Path, tmp_path: Path
) -> None:
    bundle: Bundle = request.getfixturevalue(name)
    with Classifier.open(bundle.root, "onnxruntime", precision="fp32") as classifier:
        for kind in ("float32", "float16"):
            given = LabelOptions(str(images), tmp_path / kind, batch=4, logits=kind, features=kind)
            assert label(classifier, given).whole
        rows = table(tmp_path / "float32")
        sound = [row for row in rows if row["label"]]
        expected = trained_features(bundle, classifier, [images / row["uri"] for row in sound])
    assert len(sound) == 51 and [row["features"] for row in rows if row["error"]] == [None, None]
    found = np.array([row["features"] for row in sound], np.float32)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < SAME * np.abs(expected).max()
    half = [row["features"] for row in table(tmp_path / "float16") if row["label"]]
    assert np.array_equal(np.array(half, np.float16), found.astype(np.float16))
    column = pq.read_schema(tmp_path / "float16" / "part-000000.parquet").field("features").type
    assert str(column.value_type) == "halffloat" and column.list_size == expected.shape[1]


def test_labels_are_those_without_features(labelled: Label, tmp_path: Path) -> None:
    labelled(tmp_path / "plain")
    labelled(tmp_path / "more", features="float16")
    kept = ("row", "uri", "label", "error")
    plain, more = ([{key: row[key] for key in kept} for row in table(tmp_path / name)] for name in ("plain", "more"))
    assert plain == more
    with pytest.raises(InputError, match="features: "):
        labelled(tmp_path / "plain", features="float16")


def test_another_engine_is_refused(digits_bundle: Bundle, images: Path, tmp_path: Path) -> None:
    with (
        Classifier.open(digits_bundle.root, "pytorch") as classifier,
        pytest.raises(
            InputError, match="--features: pytorch fp32 found; they come from the FP32 graph in ONNX Runtime"
        ),
    ):
        label(classifier, LabelOptions(str(images), tmp_path, features="float16"))


def test_a_network_that_ends_in_something_else_is_named(
    copy_of_bundle: Path, seal: Callable[[Path], Bundle], images: Path, tmp_path: Path
) -> None:
    path = copy_of_bundle / "model.fp32.onnx"
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("Identity", ["before"], [model.graph.output[0].name], "tail"))
    onnx.save(model, path)
    seal(copy_of_bundle)
    with (
        Classifier.open(copy_of_bundle, "onnxruntime") as classifier,
        pytest.raises(
            InputError, match=r"--features: the logits are made by Identity \(tail\), not by one linear layer"
        ),
    ):
        label(classifier, LabelOptions(str(images), tmp_path / "out", features="float16"))
