"""Networks in ONNX files that are taken: the file is the reference, and a bundle gives its answers at any batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.external_data_helper
import onnx.helper
import onnx.numpy_helper
import onnxruntime
import pytest
import timm
import torch
from torch import nn

from samdeploy.errors import WeightsError
from samdeploy.graphs.edit import serialize
from samdeploy.graphs.layers import find_layers
from samdeploy.models.graph import Exported
from samdeploy.models.maps import ClassActivationMaps
from samdeploy.models.registry import build_model, family_of, known_arch
from samdeploy.models.weights import load_state, load_weights, save_weights
from tests.models.onnx_files import (
    CLASSES,
    FLOAT,
    HEIGHT,
    WIDTH,
    classifier,
    ended_by,
    exported,
    external,
    network,
    read,
    saved,
    spec_of,
    weights,
)

# Of the logits' range: another order of sums, in float32.
FLOAT32_RELATIVE = 1e-5
node = onnx.helper.make_node


def images(count: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def run(model: onnx.ModelProto, batch: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    logits: np.ndarray = session.run(None, {session.get_inputs()[0].name: batch})[0]
    return logits


def by_hand(batch: np.ndarray) -> np.ndarray:
    """The logits of `classifier` without any samdeploy: uint8 [N, H, W, 3] -> float32 [N, K]."""
    known = {name: torch.from_numpy(value) for name, value in weights().items()}
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((torch.from_numpy(batch) / 255 - mean) / std).permute(0, 3, 1, 2)
    features = torch.relu(nn.functional.conv2d(x, known["w1"], known["b1"], padding=1))
    logits: np.ndarray = (features.mean(dim=(2, 3)) @ known["w2"].T + known["b2"]).numpy()
    return logits


def check(path: Path, height: int = HEIGHT, width: int = WIDTH) -> onnx.ModelProto:
    """The bundle's graph of a file: sound, and the file's answers at batches 1, 2 and 7."""
    spec, model = spec_of(height, width), network(path)
    made = family_of("onnx:").to_onnx(model, spec)
    onnx.checker.check_model(made, full_check=True)
    assert [(entry.domain, 17 <= entry.version <= 21) for entry in made.opset_import] == [("", True)]
    assert made.ir_version <= 10
    assert [node.name for node in made.graph.node][:4] == ["pixels", "pixels.nchw", "pixels.scaled", "pixels.shifted"]
    assert find_layers(made).pixels.nodes[:4] == ("pixels", "pixels.nchw", "pixels.scaled", "pixels.shifted")
    assert not any(item.metadata_props or item.doc_string for item in made.graph.node)
    (image,), (logits,) = made.graph.input, made.graph.output
    for value, tensor in ((image, spec.input), (logits, spec.output)):
        axes = [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        assert (value.name, axes) == (tensor.name, list(tensor.shape))
    for count in (1, 2, 7):
        batch = images(count, height, width)
        with torch.inference_mode():
            expected = Exported(model, spec)(torch.from_numpy(batch)).numpy()
        assert np.abs(run(made, batch) - expected).max() < FLOAT32_RELATIVE * np.ptp(expected)
    return made


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 20, 21, 22, 23])
def test_every_opset(opset: int, tmp_path: Path) -> None:
    made = check(saved(classifier(opset=opset), tmp_path / "small.onnx"))
    assert np.abs(run(made, images(5)) - by_hand(images(5))).max() < 1e-5


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_becomes_free(batch: int, tmp_path: Path) -> None:
    fixed = classifier(shape=(batch, 3, HEIGHT, WIDTH), answer=(batch, CLASSES))
    made = check(saved(fixed, tmp_path / "small.onnx"))
    assert np.abs(run(made, images(5)) - by_hand(images(5))).max() < 1e-5


def test_a_flat_view_of_a_fixed_batch(tmp_path: Path) -> None:
    """As PyTorch's exporter writes `as_strided`."""
    last = [node("Reshape", ["y", "all"], ["flat"]), node("Gather", ["flat", "places"], ["output"])]
    model = classifier(shape=(2, 3, HEIGHT, WIDTH), last=last, answer=(2, CLASSES))
    for name, value in (("all", [-1]), ("places", [[2, 1, 0], [5, 4, 3]])):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
    made = check(saved(model, tmp_path / "small.onnx"))
    assert np.abs(run(made, images(5)) - by_hand(images(5))[:, ::-1]).max() < 1e-5


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_a_softmax_at_the_end_is_left_out(op: str, tmp_path: Path) -> None:
    path = saved(ended_by(op, axis=1), tmp_path / "small.onnx")
    made = check(path)
    assert op not in {node.op_type for node in made.graph.node}
    assert any(f"the {op} at its end is left out" in note for note in read(path).notes)
    assert np.abs(run(made, images(5)) - by_hand(images(5))).max() < 1e-5


def test_channels_last(tmp_path: Path) -> None:
    first = [node("Transpose", ["input"], ["x"], perm=[0, 3, 1, 2])]
    made = check(saved(classifier(shape=("N", HEIGHT, WIDTH, 3), first=first), tmp_path / "small.onnx"))
    assert np.abs(run(made, images(5)) - by_hand(images(5))).max() < 1e-5


@pytest.mark.parametrize("batch", ["unk__1", -1, None, 1, 4])
def test_as_tensorflow_and_older_files_are_written(batch: int | str | None, tmp_path: Path) -> None:
    """NHWC, padding by name, a batch norm, ReLU6 of two nodes, a dense layer of two; weights that are also inputs."""
    model = classifier(opset=12)
    graph = model.graph
    conv, relu, *_ = (graph.node.pop(0) for _ in range(5))
    del conv.attribute[:]
    conv.attribute.append(onnx.helper.make_attribute("auto_pad", "SAME_UPPER"))
    conv.input[0], conv.output[0], relu.input[0] = "nchw", "conv:0", "bn:0"
    graph.node.extend(
        [
            node("Transpose", ["input"], ["nchw"], perm=[0, 3, 1, 2]),
            conv,
            node("BatchNormalization", ["conv:0", "one", "nil", "nil", "one"], ["bn:0"], epsilon=1e-6),
            relu,
            node("Clip", ["r", "low", "high"], ["r6"]),
            node("GlobalAveragePool", ["r6"], ["p"]),
            node("Squeeze", ["p"], ["f"], axes=[2, 3]),
            node("MatMul", ["f", "dense"], ["m"]),
            node("Add", ["m", "b2"], ["y"]),
            node("Softmax", ["y"], ["output"], axis=1),
        ]
    )
    ones = np.ones(4, np.float32)
    limits = {"low": np.float32(0), "high": np.float32(1e3)}
    for name, value in {"one": ones, "nil": 0 * ones, "dense": weights()["w2"].T.copy(), **limits}.items():
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    del graph.input[:]
    graph.input.append(onnx.helper.make_tensor_value_info("input", FLOAT, [batch, HEIGHT, WIDTH, 3]))
    graph.input.extend(onnx.helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in graph.initializer)
    graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("output", FLOAT, [batch, CLASSES]))
    model.ir_version = 3
    made = check(saved(model, tmp_path / "small.onnx"))
    assert np.abs(run(made, images(5)) - by_hand(images(5))).max() < 1e-4


@pytest.mark.parametrize("opset", [11, 17])
def test_standardised_weights_are_a_batch_norm_in_training_mode(opset: int, tmp_path: Path) -> None:
    """As PyTorch's older exporter writes those of NFNets: the weights of one channel are the one image."""
    model = classifier(opset=opset)
    conv, *_ = model.graph.node
    shape = weights()["w1"].shape
    last = {"training_mode": 1} if opset >= 14 else {}
    outputs = ["bn", "mean", "var"] if last else ["bn", "mean", "var", "saved mean", "saved var"]
    conv.input[1] = "standardised"
    nodes = [
        node("Reshape", ["w1", "as image"], ["image"]),
        node("BatchNormalization", ["image", "one", "nil", "nil", "one"], outputs, momentum=0.0, **last),
        node("Reshape", ["bn", "as weight"], ["standardised"]),
    ]
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    ones = np.ones(shape[0], np.float32)
    values = {"one": ones, "nil": 0 * ones, "as image": np.array([1, shape[0], -1]), "as weight": np.array(shape)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in values.items())
    made = check(saved(model, tmp_path / "small.onnx"))
    assert "BatchNormalization" not in {found.op_type for found in made.graph.node}


def test_logits_of_one_cell(tmp_path: Path) -> None:
    last = [node("Unsqueeze", ["y", "axes"], ["output"])]
    model = classifier(last=last, answer=("N", CLASSES, 1, 1))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 3]), "axes"))
    made = check(saved(model, tmp_path / "small.onnx"))
    assert np.abs(run(made, images(5)) - by_hand(images(5))).max() < 1e-5


def test_names_of_a_bundle_inside_the_file(tmp_path: Path) -> None:
    model = classifier()
    for index, found in enumerate(model.graph.node):
        found.name = ["pixels", "pixels.nchw", "logits", "cam", ""][index]
        for names in (found.input, found.output):
            names[:] = [{"c": "image", "r": "logits", "p": "pixels.shifted"}.get(name, name) for name in names]
    made = check(saved(model, tmp_path / "small.onnx"))
    assert np.abs(run(made, images(5)) - by_hand(images(5))).max() < 1e-5


def test_the_state_is_the_file(tmp_path: Path) -> None:
    path = saved(classifier(), tmp_path / "small.onnx")
    save_weights(network(path), tmp_path / "weights.safetensors")
    again = build_model("onnx:small", CLASSES).eval()
    load_weights(again, tmp_path / "weights.safetensors")
    assert again.state_dict()["onnx"].numpy().tobytes() == path.read_bytes()
    to_onnx = family_of("onnx:").to_onnx
    assert serialize(to_onnx(again, spec_of())) == serialize(to_onnx(network(path), spec_of()))
    with pytest.raises(WeightsError, match="unexpected: head"):
        load_state(again, {"head": torch.zeros(3)}, "others")


def test_any_name_of_a_file_is_known(tmp_path: Path) -> None:
    assert known_arch("onnx:whatever").prefix == "onnx"
    assert read(saved(classifier(), tmp_path / "my net\n(1).onnx")).arch == "onnx:my_net__1_"


def test_maps_are_those_of_the_file(tmp_path: Path) -> None:
    model = network(saved(ended_by("Softmax"), tmp_path / "small.onnx"))
    known = {name: torch.from_numpy(value) for name, value in weights().items()}
    with torch.inference_mode():
        logits, maps = ClassActivationMaps(model, spec_of())(torch.from_numpy(images(2)))
        x = Exported(model, spec_of()).normalize(torch.from_numpy(images(2)))
    features = torch.relu(nn.functional.conv2d(x, known["w1"], known["b1"], padding=1))
    expected = torch.einsum("nchw,kc->nkhw", features, known["w2"])
    assert torch.allclose(maps, expected, atol=1e-5)
    assert np.abs(logits.numpy() - by_hand(images(2))).max() < 1e-5


def test_no_maps_of_another_head(tmp_path: Path) -> None:
    model = network(saved(ended_by("Tanh"), tmp_path / "small.onnx"))
    assert family_of("onnx:").features_and_head(model, spec_of().preprocessing) is None


@pytest.mark.parametrize(
    ("batch", "opset", "dynamo"), [(None, 17, False), (1, 18, False), (2, 20, False), (1, 23, True), (None, 18, True)]
)
def test_a_vision_transformer_of_pytorchs_exporters(
    batch: int | None, opset: int, dynamo: bool, tmp_path: Path
) -> None:
    """Class tokens, and reshapes that hold the batch; opset 23 has an operator that older runtimes lack."""
    torch.manual_seed(0)
    module = timm.create_model("test_vit", num_classes=CLASSES, img_size=32, depth=1).eval()
    path = exported(module, tmp_path / "vit.onnx", 32, batch=batch, opset=opset, dynamo=dynamo)
    made = check(path, 32, 32)
    with torch.inference_mode():
        expected = Exported(module, spec_of(32, 32))(torch.from_numpy(images(3, 32, 32))).numpy()
    assert np.abs(run(made, images(3, 32, 32)) - expected).max() < FLOAT32_RELATIVE * np.ptp(expected)


def test_weights_beside_the_file_are_taken_in(tmp_path: Path) -> None:
    path = external(tmp_path, "w.bin")
    model = network(path)
    (tmp_path / "w.bin").unlink()
    made = family_of("onnx:").to_onnx(model, spec_of())
    assert np.abs(run(made, images(5)) - by_hand(images(5))).max() < 1e-5


def test_a_masked_class_and_a_dropout_that_does_nothing_are_taken(tmp_path: Path) -> None:
    off = onnx.numpy_helper.from_array(np.array(False))
    last = [
        node("Constant", [], ["no"], value=off),
        node("Dropout", ["y", "", "no"], ["same"]),
        node("Add", ["same", "mask"], ["output"]),
    ]
    model = classifier(last=last)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, 0, -1e4], np.float32), "mask"))
    assert read(saved(model, tmp_path / "small.onnx")).num_classes == CLASSES


def test_a_graph_that_normalises_is_named(tmp_path: Path) -> None:
    model = classifier(first=[node("Sub", ["input", "mean"], ["d"]), node("Div", ["d", "mean"], ["x"])])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.full((1, 3, 1, 1), 0.5, np.float32), "mean"))
    notes = read(saved(model, tmp_path / "small.onnx")).notes
    assert any("begins with Sub, Div by constants" in note and "--mean 0,0,0 --std 1,1,1" in note for note in notes)
