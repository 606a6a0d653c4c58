"""ONNX files that are refused before anything is written, and weights in the place of one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.external_data_helper
import onnx.helper
import onnx.numpy_helper
import pytest
import torch

from samdeploy.errors import InputError
from samdeploy.models.registry import build_model, family_of
from samdeploy.models.weights import load_state
from tests.models.onnx_files import (
    CLASSES,
    FLOAT,
    HEIGHT,
    WIDTH,
    classifier,
    ended_by,
    external,
    network,
    read,
    saved,
    spec_of,
    weights,
)

node = onnx.helper.make_node


def refused(model: onnx.ModelProto, folder: Path, match: str) -> None:
    with pytest.raises(InputError, match=match):
        read(saved(model, folder / "refused.onnx"))


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


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    model = network(saved(classifier(), tmp_path / "small.onnx"))
    with pytest.raises(InputError, match=r"takes images of 8x12, 9x9 found: --size 8x12"):
        model(torch.zeros(1, 3, 9, 9))


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


def trains() -> onnx.ModelProto:
    """A BatchNormalization that takes the mean of the batch."""
    inputs = ["y", "bias", "bias", "bias", "bias"]
    model = classifier(last=[node("BatchNormalization", inputs, ["output", "mean", "var"], training_mode=1)])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(CLASSES, np.float32), "bias"))
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
        (trains, r"answers by chance or as in training \(BatchNormalization\); export the network in eval mode"),
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
