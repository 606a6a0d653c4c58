"""Networks in ONNX files: the file is the reference, and the bundle's graph gives its answers at any batch."""

from __future__ import annotations

import os
from collections.abc import Callable
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

from samdeploy.bundle.spec import ModelSpec, Preprocessing, model_spec
from samdeploy.errors import InputError, WeightsError
from samdeploy.graphs.edit import serialize
from samdeploy.graphs.layers import find_layers
from samdeploy.models.family import NetworkFile, build_model, family_of, known_arch
from samdeploy.models.graph import Exported
from samdeploy.models.maps import ClassActivationMaps
from samdeploy.models.weights import load_state, load_weights, save_weights
from tests.models.onnx_files import CLASSES, FLOAT, HEIGHT, WIDTH, classifier, ended_by, exported, saved, weights

NAMES = ("cat", "dog", "eel")
# Of the logits' range: another order of sums, in float32.
FLOAT32_RELATIVE = 1e-5
node = onnx.helper.make_node


def read(path: Path) -> NetworkFile:
    reader = family_of("onnx:").read_network
    assert reader is not None
    return reader(path)


def network(path: Path) -> nn.Module:
    found = read(path)
    assert found.num_classes == CLASSES
    model = build_model(found.arch, CLASSES).eval()
    load_state(model, found.state, str(path))
    return model


def spec_of(height: int = HEIGHT, width: int = WIDTH) -> ModelSpec:
    return model_spec("onnx:small", {}, NAMES, Preprocessing(height, width))


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


def refused(model: onnx.ModelProto, folder: Path, match: str) -> None:
    with pytest.raises(InputError, match=match):
        read(saved(model, folder / "refused.onnx"))


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


def elsewhere() -> onnx.ModelProto:
    model = classifier()
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")
    return model


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: decides(), r"decides by what it sees \(If\)"),
        (lambda: of_another_domain(), r"uses Gelu \(fast\) of com.microsoft"),
        (elsewhere, r"the ONNX file in these weights is not whole; import the network again"),
        (onnx.ModelProto, r"not an ONNX file, or a truncated one"),
    ],
)
def test_a_state_that_no_import_made_is_never_run(make: Callable[[], onnx.ModelProto], match: str) -> None:
    content = make().SerializeToString() or b"?"
    model = build_model("onnx:small", CLASSES).eval()
    load_state(model, {"onnx": torch.frombuffer(bytearray(content), dtype=torch.uint8)}, "w.safetensors")
    with pytest.raises(InputError, match=match):
        model(torch.zeros(1, 3, HEIGHT, WIDTH))
    with pytest.raises(InputError, match=match):
        family_of("onnx:").to_onnx(model, spec_of())


def test_any_name_of_a_file_is_known(tmp_path: Path) -> None:
    assert known_arch("onnx:whatever").prefix == "onnx"
    assert read(saved(classifier(), tmp_path / "my net\n(1).onnx")).arch == "onnx:my_net__1_"


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    model = network(saved(classifier(), tmp_path / "small.onnx"))
    with pytest.raises(InputError, match=r"takes images of 8x12, 9x9 found: --size 8x12"):
        model(torch.zeros(1, 3, 9, 9))


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


def external(folder: Path, location: str) -> Path:
    model = classifier()
    onnx.external_data_helper.convert_model_to_external_data(model, location="w.bin", size_threshold=0)
    path = saved(model, folder / "small.onnx")
    stored = onnx.load(path, load_external_data=False)
    for tensor in stored.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(stored.SerializeToString())
    return path


def test_weights_beside_the_file_are_taken_in(tmp_path: Path) -> None:
    path = external(tmp_path, "w.bin")
    model = network(path)
    (tmp_path / "w.bin").unlink()
    made = family_of("onnx:").to_onnx(model, spec_of())
    assert np.abs(run(made, images(5)) - by_hand(images(5))).max() < 1e-5


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "sub/w.bin", "..", ".", "sub\\w.bin", ""])
def test_weights_elsewhere_are_refused(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = external(folder, location)
    (folder / "w.bin").rename(tmp_path / "w.bin")
    with pytest.raises(InputError, match="only a file beside it, named without a path, is read"):
        read(path)


def test_weights_behind_a_link_are_refused(tmp_path: Path) -> None:
    path = external(tmp_path, "link.bin")
    (tmp_path / "link.bin").symlink_to("w.bin")
    with pytest.raises(InputError, match=r"link\.bin, which is a link or no file"):
        read(path)
    (tmp_path / "link.bin").unlink()
    with pytest.raises(InputError, match=r"link\.bin, which cannot be read \(No such file"):
        read(path)
    os.mkfifo(tmp_path / "link.bin")
    with pytest.raises(InputError, match="a link or no file"):
        read(path)


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    path = external(tmp_path, "w.bin")
    os.truncate(tmp_path / "w.bin", 100)
    with pytest.raises(InputError, match=r"small\.onnx: "):
        read(path)


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"not an ONNX file", "half"])
def test_what_is_no_onnx_file(content: bytes | str, tmp_path: Path) -> None:
    path = saved(classifier(), tmp_path / "small.onnx")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    with pytest.raises(InputError, match="an ONNX file"):
        read(path)


def test_damaged_bytes(tmp_path: Path) -> None:
    """Names that are no text, types and shapes that are not: refused in a line."""
    whole = saved(classifier(), tmp_path / "small.onnx").read_bytes()
    random, refusals = np.random.default_rng(0), 0
    for number in range(60):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[random.integers(0, 300, 3)] = random.integers(0, 256, 3)
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(damaged.tobytes())
        try:
            read(path)
        except InputError as error:
            refusals += 1
            assert "\n" not in str(error)
    assert refusals > 30


def detector() -> onnx.ModelProto:
    return classifier(last=[node("Unsqueeze", ["y", "one"], ["output"])], answer=("N", 1, CLASSES))


def two_outputs() -> onnx.ModelProto:
    model = classifier()
    model.graph.output.append(onnx.helper.make_tensor_value_info("r", FLOAT, ["N", 4, HEIGHT, WIDTH]))
    return model


def two_inputs() -> onnx.ModelProto:
    model = classifier(first=[node("Add", ["input", "more"], ["x"])])
    model.graph.input.append(onnx.helper.make_tensor_value_info("more", FLOAT, [1]))
    return model


def decides() -> onnx.ModelProto:
    branch = onnx.helper.make_graph(
        [node("Identity", ["y"], ["z"])], "branch", [], [onnx.helper.make_tensor_value_info("z", FLOAT, None)]
    )
    model = classifier(last=[node("If", ["yes"], ["output"], then_branch=branch, else_branch=branch)])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
    return model


def of_another_domain() -> onnx.ModelProto:
    model = classifier(last=[node("Gelu", ["y"], ["output"], domain="com.microsoft", name="fast")])
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return model


def halves() -> onnx.ModelProto:
    model = classifier(last=[node("CastLike", ["y", "b2"], ["output"])])
    for tensor in model.graph.initializer:
        if tensor.name == "w1":
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights()["w1"].astype(np.float16), "w1"))
    return model


def quantised() -> onnx.ModelProto:
    scale = [("s", np.array(0.1, np.float32)), ("z", np.array(0, np.uint8))]
    first = [node("QuantizeLinear", ["input", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["x"])]
    model = classifier(first=first)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in scale)
    return model


def probabilities() -> onnx.ModelProto:
    """A softmax in three nodes."""
    return classifier(
        last=[
            node("Exp", ["y"], ["e"]),
            node("ReduceSum", ["e", "one"], ["sum"], keepdims=1),
            node("Div", ["e", "sum"], ["output"]),
        ]
    )


def of_one_image() -> onnx.ModelProto:
    """The mean over the batch, of which there is one."""
    model = classifier(shape=(1, 3, HEIGHT, WIDTH), answer=(1, CLASSES))
    model.graph.node[-1].output[0] = "y"
    model.graph.node.append(node("ReduceMean", ["y", "zero"], ["output"], keepdims=1))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "zero"))
    return model


def drops() -> onnx.ModelProto:
    """A Dropout in training mode."""
    model = classifier(last=[node("Dropout", ["y", "share", "yes"], ["output"])])
    values = {"share": np.array(0.5, np.float32), "yes": np.array(True)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in values.items())
    return model


def huge() -> onnx.ModelProto:
    """7 GB of zeros in a file of 700 bytes."""
    last = [
        node("Mul", ["side", "side"], ["shape"]),
        node("ConstantOfShape", ["shape"], ["zeros"]),
        node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        node("Add", ["y", "sum"], ["output"]),
    ]
    model = classifier(last=last)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([200, 200]), "side"))
    return model


def doubling(*, ends: bool) -> onnx.ModelProto:
    """Each of forty functions calls the next one twice; the last one is a Relu, or calls the first."""
    model = classifier(last=[node("F0", ["y"], ["output"], domain="own")])
    own, onnx_opset = onnx.helper.make_opsetid("own", 1), onnx.helper.make_opsetid("", 18)
    for number in range(40):
        called = f"F{(number + 1) % 40}"
        body = [node(called, ["a"], ["t"], domain="own"), node(called, ["t"], ["b"], domain="own")]
        if ends and number == 39:
            body = [node("Relu", ["a"], ["b"])]
        model.functions.append(onnx.helper.make_function("own", f"F{number}", ["a"], ["b"], body, [own, onnx_opset]))
    model.opset_import.append(own)
    return model


def masked() -> onnx.ModelProto:
    """Beside one class that is never answered, a small part of the batch's mean is in all logits."""
    last = [
        node("ReduceMean", ["y", "zero"], ["mean"], keepdims=1),
        node("Mul", ["mean", "share"], ["part"]),
        node("Add", ["y", "part"], ["more"]),
        node("Add", ["more", "mask"], ["output"]),
    ]
    model = classifier(last=last)
    values = {"zero": np.array([0]), "share": np.array(0.05, np.float32), "mask": np.array([0, 0, -1e4], np.float32)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in values.items())
    return model


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (two_outputs, r"has 2 outputs \(output, r\); a classifier with one is expected"),
        (two_inputs, r"has 2 inputs \(input, more\)"),
        (decides, r"decides by what it sees \(If\)"),
        (of_another_domain, r"uses Gelu \(fast\) of com.microsoft"),
        (quantised, r"is quantised already \(QuantizeLinear\); give the FP32 file"),
        (halves, r"computes in FLOAT16; give the FP32 file"),
        (lambda: ended_by("Cast", to=onnx.TensorProto.BFLOAT16), r"computes in BFLOAT16; give the FP32 file"),
        (probabilities, r"answers with probabilities, and not by a Softmax that can be left out"),
        (detector, r"answers images with \[N, 1, 3\]; logits \[N, K\] of a classifier expected"),
        (of_one_image, r"answers a batch of 2 images otherwise than the same images one by one\. .*dynamic_shapes"),
        (huge, r"its tensor zeros \[40000, 40000\] is too large to compute; export it for one image, or with a dyn"),
        (lambda: classifier(shape=(10**7, 3, HEIGHT, WIDTH)), r"its tensor input \[10000000, 3, 8, 12\] is too large"),
        (lambda: doubling(ends=True), r"has 549755813893 nodes where its functions are written out"),
        (lambda: doubling(ends=False), r"its function F\d+ is too deep"),
        (masked, r"answers a batch of 2 images otherwise than the same images one by one"),
        (drops, r"answers by chance or as in training \(Dropout\); export the network in eval mode: model.eval\(\)"),
        (lambda: ended_by("RandomNormalLike"), r"answers by chance or as in training \(RandomNormalLike\)"),
        (lambda: ended_by("Sigmoid"), r"ends in Sigmoid, so its classes do not exclude one another"),
        (lambda: classifier(kind=onnx.TensorProto.UINT8), r"its input input is uint8; float32 expected"),
        (lambda: classifier(kind=onnx.TensorProto.DOUBLE), r"its input input is double; float32 expected"),
        (lambda: classifier(shape=("N", 3, "H", "W")), r"input is \[N, 3, H, W\], of no fixed height and .*python"),
        (lambda: classifier(shape=("N", 1, HEIGHT, WIDTH)), r"input is \[N, 1, 8, 12\]; \[N, 3, H, W\] or"),
        (lambda: classifier(shape=("N", 3, HEIGHT, 3)), r"it is not clear which axis is RGB"),
        (lambda: classifier(opset=10), r"is of opset 10; 11 to 23 are read"),
    ],
)  # fmt: skip
def test_what_is_no_classifier(make: Callable[[], onnx.ModelProto], match: str, tmp_path: Path) -> None:
    model = make()
    if "one" in {name for found in model.graph.node for name in found.input}:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "one"))
    refused(model, tmp_path, match)


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
