"""The graph of class activation maps: the trained network's maps, which add up to its logits."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.shape_inference
import onnxruntime
import pytest
import torch

from samdeploy.backends.onnxruntime.session import emulate_all
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.bundle.manifest import DataRecord
from samdeploy.bundle.spec import Preprocessing, model_spec
from samdeploy.errors import ExportError
from samdeploy.export import ExportOptions, export_run
from samdeploy.export.cam_graph import CAM_GRAPH_FILE, add_cam_graph, cam_graph, check_cam_graph
from samdeploy.export.pack import BundleWriter
from samdeploy.graphs.cam_head import find_head
from samdeploy.graphs.edit import constants, make_node, serialize, set_constant
from samdeploy.graphs.pixels import NORMALISED
from samdeploy.models import Exported
from samdeploy.models.maps import ClassActivationMaps
from samdeploy.models.sam_resnet.fold import fold
from samdeploy.models.sam_resnet.onnx import graph_from_model
from tests.graphs.small import small_graph
from tests.traced import SPEC, images, torchvision_resnet18

# As in test_onnx.py: the graph's distance from the float64 truth, as a multiple of PyTorch's own in float32.
FP32_RATIO = 5.0


@pytest.fixture(scope="module")
def wide_spec():
    """96x64 pixels: maps of 3x2 cells, so that an exchange of height and width would show."""
    return model_spec(
        "sam-resnet50", {"gate": "identity"}, tuple(f"class {i}" for i in range(10)), Preprocessing(96, 64)
    )


@pytest.fixture(scope="module")
def wide_images() -> np.ndarray:
    """uint8 [7, 96, 64, 3]"""
    return np.random.default_rng(5).integers(0, 256, (7, 96, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(("arch", "gate"), [("sam-resnet18", "original"), ("sam-resnet50", "identity")])
def test_maps_are_the_trained_networks(network, wide_spec, wide_images, arch: str, gate: str) -> None:
    model = network(arch, gate)
    graph = serialize(cam_graph(graph_from_model(fold(model), wide_spec)))
    maps_of = ClassActivationMaps(copy.deepcopy(model), wide_spec).eval()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        images = torch.from_numpy(wide_images)
        rounding = [tensor.numpy() for tensor in maps_of(images)]
        plain = Exported(model, wide_spec)(images).numpy()
        # Float64 from the normalised pixels on.
        normalized = maps_of.normalize(images).double()
        double = copy.deepcopy(model).double()
        features = double.features(normalized).permute(0, 2, 3, 1)
        bias = double.fc(torch.zeros(1, features.shape[-1], dtype=torch.float64)).numpy()
        truth_maps = (double.fc(features) - torch.from_numpy(bias)).permute(0, 3, 1, 2).numpy()
        truth_logits = double(normalized).numpy()
    np.testing.assert_allclose(rounding[0], plain, rtol=0, atol=1e-5 * np.ptp(plain))  # the same network
    np.testing.assert_allclose(truth_maps.mean(axis=(2, 3)) + bias, truth_logits, rtol=0, atol=1e-9 * np.ptp(plain))
    assert truth_maps.shape == (7, 10, 3, 2)
    # Every cell has a value of its own: a map that was turned, mirrored or mixed up would show.
    assert np.sort(truth_maps[0, 0].ravel()).tolist() == sorted(set(truth_maps[0, 0].ravel().tolist()))
    for batch in (1, 2, 7):
        found = session.run(["logits", "cam"], {"image": wide_images[:batch]})
        for value, truth, ours in zip(found, (truth_logits, truth_maps), rounding, strict=True):
            assert value.dtype == np.float32
            off = float(np.abs(ours - truth).max())
            assert 1e-8 * np.ptp(truth) < off < 1e-4 * np.ptp(truth)
            assert float(np.abs(value - truth[:batch]).max()) < FP32_RATIO * off


def test_interface(network, wide_spec) -> None:
    net = fold(network("sam-resnet18", "original"))
    graph = cam_graph(graph_from_model(net, wide_spec)).graph
    outputs = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in graph.output
    }
    assert outputs == {"logits": ["N", 10], "cam": ["N", 10, 3, 2]}
    # Layer by layer it is the graph that classifies, but for the head.
    plain = graph_from_model(net, wide_spec).graph
    shared = [node.SerializeToString() for node in plain.node if node.name not in ("pool", "flatten", "head")]
    assert [node.SerializeToString() for node in graph.node][: len(shared)] == shared
    assert [node.name for node in graph.node][len(shared) :] == ["cam", "cam.mean", "cam.flat", "head"]


@pytest.mark.parametrize("pixels", [(33, 64), (65, 97)])
def test_the_number_of_cells_is_stated_right(network, pixels: tuple[int, int]) -> None:
    """ONNX's own shape inference, run by the checker, would contradict a wrong one."""
    spec = model_spec("sam-resnet18", {"gate": "original"}, tuple("0123456789"), Preprocessing(*pixels))
    graph = serialize(cam_graph(graph_from_model(fold(network("sam-resnet18", "original")), spec)))
    _, maps = emulate_all(graph, np.zeros((1, *pixels, 3), np.uint8))
    assert maps.shape[2:] == (-(-pixels[0] // 32), -(-pixels[1] // 32))


def test_maps_of_a_traced_network() -> None:
    """ReduceMean, Reshape (PyTorch 2.10: Flatten) and Gemm instead of GlobalAveragePool, Flatten and Gemm."""
    network = torchvision_resnet18()
    head = find_head(network.graph)
    assert head.features == "layer4.1.relu.2"
    assert head.nodes in (("avgpool", "reshape", "fc"), ("avgpool", "flatten", "fc"))
    model = cam_graph(network.graph)
    given = [tensor.name for tensor in model.graph.initializer]
    assert set(given) <= {name for node in model.graph.node for name in node.input}  # nothing rides along unused
    with torch.inference_mode():
        maps_of = ClassActivationMaps(network.trained, SPEC).eval()
        logits, maps = (tensor.numpy() for tensor in maps_of(torch.from_numpy(images())))
    assert maps.shape == (12, 10, 2, 3)
    check_cam_graph(serialize(model), images(), logits, logits, maps, network.trained.fc.bias.detach().numpy())


HEADS = {
    "Gemm, its weight as it is multiplied": [
        make_node("GlobalAveragePool", "pool", ["features"]),
        make_node("Flatten", "flat", ["pool"], axis=1),
        make_node("Gemm", "head", ["flat", "turned", "bias"], "logits"),
    ],
    "MatMul and Add": [
        make_node("ReduceMean", "pool", ["features"], axes=[2, 3], keepdims=0),
        make_node("MatMul", "head", ["pool", "turned"]),
        make_node("Add", "sum", ["head", "bias"], "logits"),
    ],
    "channels last": [
        make_node("Transpose", "nhwc", ["features"], perm=[0, 2, 3, 1]),
        make_node("ReduceMean", "pool", ["nhwc"], axes=[1, 2], keepdims=0),
        make_node("Gemm", "head", ["pool", "turned", "bias"], "logits"),
    ],
    "no bias": [
        make_node("ReduceMean", "pool", ["features"], axes=[-1, -2]),
        make_node("Squeeze", "flat", ["pool", "axes"]),
        make_node("Gemm", "head", ["flat", "weight"], "logits", transB=1),
    ],
}
NO_HEADS = {
    "Relu (relu) is between the mean of the features and the linear layer, so no logit is a sum over positions": [
        make_node("GlobalAveragePool", "pool", ["features"]),
        make_node("Flatten", "flat", ["pool"], axis=1),
        make_node("Relu", "relu", ["flat"]),
        make_node("Gemm", "head", ["relu", "turned"], "logits"),
    ],
    "the head reads ReduceMean (pool), not the mean over the height and width of features": [
        make_node("ReduceMean", "pool", ["features"], axes=[1, 3], keepdims=0),
        make_node("Gemm", "head", ["pool", "square"], "logits"),
    ],
    "the head reads Relu (relu), not the mean of features": [
        make_node("Relu", "relu", ["features"]),
        make_node("Flatten", "flat", ["relu"], axis=1),
        make_node("Gemm", "head", ["flat", "flattened"], "logits"),
    ],
    "the head reads the class token, or another part of the features, by Gather (token); not their mean": [
        make_node("Reshape", "tokens", ["features", "tokens.shape"]),
        make_node("Gather", "token", ["tokens", "first"], axis=2),
        make_node("Gemm", "head", ["token", "turned"], "logits"),
    ],
    "the logits are made by Gemm (head), not by one linear layer": [
        make_node("ReduceMean", "pool", ["features"], axes=[2, 3], keepdims=0),
        make_node("Gemm", "head", ["pool", "turned"], "logits", alpha=0.5),
    ],
    "the logits are made by Softmax (chances), not by one linear layer": [
        make_node("ReduceMean", "pool", ["features"], axes=[2, 3], keepdims=0),
        make_node("Gemm", "head", ["pool", "turned"]),
        make_node("Softmax", "chances", ["head"], "logits"),
    ],
}


def head_graph(nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    """Five features of 8x8 cells, four classes."""
    used = {name for node in nodes for name in node.input}
    shapes = {"turned": (5, 4), "weight": (4, 5), "bias": (4,), "square": (8, 4), "flattened": (5 * 64, 4)}
    weights = {"conv.weight": (5, 3, 3, 3)} | {name: shape for name, shape in shapes.items() if name in used}
    features = make_node("Conv", "features", [NORMALISED, "conv.weight"], pads=[1, 1, 1, 1])
    model = small_graph(features, *nodes, weights=weights)
    rng = np.random.default_rng(2)
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            set_constant(tensor, rng.normal(size=tensor.dims).astype(np.float32))
    for name, values in {"axes": [2, 3], "tokens.shape": [0, 5, 64]}.items():
        if name in used:
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(values), name))
    if "first" in used:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0), "first"))
    return onnx.shape_inference.infer_shapes(model)


@pytest.mark.parametrize("head", HEADS)
def test_heads_that_are_found(head: str) -> None:
    model = head_graph(HEADS[head])
    examples = np.random.default_rng(3).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    (expected,) = emulate_all(serialize(model), examples)
    logits, maps = emulate_all(serialize(cam_graph(model)), examples)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.ptp(expected))
    bias = find_head(model).bias
    added = onnx.numpy_helper.to_array(constants(model)[bias]) if bias else 0
    assert maps.shape == (3, 4, 8, 8)
    np.testing.assert_allclose(maps.mean(axis=(2, 3)) + added, expected, rtol=0, atol=1e-5 * np.ptp(expected))


@pytest.mark.parametrize("reason", NO_HEADS)
def test_networks_without_maps_cost_a_line(reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = dataclasses.replace(torchvision_resnet18(), graph=head_graph(NO_HEADS[reason]))
    writer = BundleWriter(tmp_path, SPEC, DataRecord("digits", {}, 0.1, 0, {}, {}), {})
    add_cam_graph(writer, network, images())
    assert capsys.readouterr().err == f"no maps: {reason}\n"
    assert list(tmp_path.iterdir()) == []


def test_features_that_no_module_has_give_no_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family = SimpleNamespace(features_and_head=lambda model, size: None)
    network = dataclasses.replace(torchvision_resnet18(), family=family)
    writer = BundleWriter(tmp_path, SPEC, DataRecord("digits", {}, 0.1, 0, {}, {}), {})
    add_cam_graph(writer, network, images())
    assert capsys.readouterr().err == (
        "no maps: no module of torchvision:resnet18 has the features whose mean the head reads\n"
    )


def _swap_classes(model: onnx.ModelProto) -> None:
    for weight in model.graph.initializer:
        if weight.name in ("head.weight", "head.bias"):
            array = onnx.numpy_helper.to_array(weight).copy()
            array[[0, 1]] = array[[1, 0]]
            weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))


def _shift_bias(model: onnx.ModelProto) -> None:
    (bias,) = (weight for weight in model.graph.initializer if weight.name == "head.bias")
    array = onnx.numpy_helper.to_array(bias).copy()
    array[3] += 0.05
    bias.CopyFrom(onnx.numpy_helper.from_array(array, bias.name))


def _change_maps_alone(model: onnx.ModelProto, op: str, **attributes: object) -> None:
    """Put a node between the maps that are added up and the maps that are given out."""
    (conv,) = (node for node in model.graph.node if node.name == "cam")
    (mean,) = (node for node in model.graph.node if node.name == "cam.mean")
    conv.output[0] = mean.input[0] = "cam.hidden"
    model.graph.node.append(onnx.helper.make_node(op, ["cam.hidden"], ["cam"], **attributes))


FAULTS: dict[str, tuple[Callable[[onnx.ModelProto], None], str]] = {
    "two classes change places": (_swap_classes, "logits: differ from the FP32 graph's by"),
    "a bias is off": (_shift_bias, "logits: differ from the FP32 graph's by"),
    "negative evidence is lost": (lambda model: _change_maps_alone(model, "Relu"), "maps: differ from PyTorch's by"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_graph_is_refused(network, wide_spec, wide_images, fault: str) -> None:
    model = network("sam-resnet18", "original")
    net = fold(model)
    plant, text = FAULTS[fault]
    with torch.inference_mode():
        logits, maps = (t.numpy() for t in ClassActivationMaps(model, wide_spec)(torch.from_numpy(wide_images)))
    expected = wide_images, logits, logits, maps, net.head.bias.numpy()
    graph = cam_graph(graph_from_model(net, wide_spec))
    check_cam_graph(serialize(graph), *expected)
    plant(graph)
    with pytest.raises(ExportError, match=text):
        check_cam_graph(serialize(graph), *expected)


def test_maps_that_do_not_add_up_are_refused(network, wide_spec, wide_images) -> None:
    """Maps that agree with a reference that is wrong in the same way."""
    model = network("sam-resnet18", "original")
    with torch.inference_mode():
        logits, maps = (t.numpy() for t in ClassActivationMaps(model, wide_spec)(torch.from_numpy(wide_images)))
    net = fold(model)
    graph, bias = cam_graph(graph_from_model(net, wide_spec)), net.head.bias.numpy()
    _change_maps_alone(graph, "Relu")
    with pytest.raises(ExportError, match="mean of the maps plus bias: differ from the logits by"):
        check_cam_graph(serialize(graph), wide_images, logits, logits, np.maximum(maps, 0), bias)


def test_a_bundle_holds_the_graph_unless_it_is_not_wanted(
    digits_run: Path, digits_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    file = digits_bundle.find("cam_graph")
    assert file is not None
    assert (file.path, file.precision, file.backend) == (CAM_GRAPH_FILE, "fp32", None)
    fp32 = digits_bundle.find("graph", precision="fp32")
    assert fp32 is not None
    assert abs(file.bytes - fp32.bytes) < 2_000  # as large as the graph that classifies
    logits, maps = emulate_all(digits_bundle.read(file), digits_bundle.golden()[0])
    np.testing.assert_allclose(logits, digits_bundle.golden()[1], rtol=0, atol=1e-4 * np.ptp(logits))
    assert maps.shape[1:] == (10, 1, 1)

    monkeypatch.setattr("samdeploy.export.run_images.CALIBRATION_IMAGES", 8)
    run = tmp_path / "run"
    shutil.copytree(digits_run, run)
    assert (run / "bundle" / CAM_GRAPH_FILE).is_file()
    without = open_bundle(export_run(run, ExportOptions(engine="onnxruntime", cam=False)).bundle)
    assert without.find("cam_graph") is None
    assert not (run / "bundle" / CAM_GRAPH_FILE).exists()
