"""Small classifiers as ONNX files, written node by node and by PyTorch's exporters."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.external_data_helper
import onnx.helper
import onnx.numpy_helper
import torch
from torch import nn

from samdeploy.bundle.spec import ModelSpec, Preprocessing, model_spec
from samdeploy.models.family import NetworkFile
from samdeploy.models.registry import build_model, family_of
from samdeploy.models.weights import load_state

HEIGHT, WIDTH, CLASSES = 8, 12, 3
NAMES = ("cat", "dog", "eel")
FLOAT = onnx.TensorProto.FLOAT
Shape = Sequence[int | str | None]


def weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (CLASSES, 4), "b2": (CLASSES,)}
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def classifier(
    *,
    shape: Shape = ("N", 3, HEIGHT, WIDTH),
    first: Sequence[onnx.NodeProto] = (),
    last: Sequence[onnx.NodeProto] = (),
    opset: int = 18,
    kind: int = FLOAT,
    answer: Shape = ("N", CLASSES),
) -> onnx.ModelProto:
    """Conv, Relu, mean, Gemm from "input" to "output".

    Args:
        shape: of the input.
        first: nodes from "input" to "x".
        last: nodes from "y" to "output".
        kind: type of the input.
        answer: shape of the output.
    """
    node = onnx.helper.make_node
    nodes = [
        *first,
        node("Conv", ["x" if first else "input", "w1", "b1"], ["c"], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("GlobalAveragePool", ["r"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w2", "b2"], ["y" if last else "output"], transB=1),
        *last,
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "classifier",
        [onnx.helper.make_tensor_value_info("input", kind, shape)],
        [onnx.helper.make_tensor_value_info("output", FLOAT, answer)],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights().items()],
    )
    ir = 8 if opset < 19 else 10
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=ir)


def ended_by(op: str, **attributes: int) -> onnx.ModelProto:
    """A classifier with one more node at its end."""
    return classifier(last=[onnx.helper.make_node(op, ["y"], ["output"], **attributes)])


def saved(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


def exported(module: nn.Module, path: Path, side: int, *, batch: int | None, opset: int, dynamo: bool) -> Path:
    """As PyTorch writes it for images of `side` pixels; `batch` None is dynamic."""
    example = torch.zeros(batch or 2, 3, side, side)
    free: dict[str, object] = {}
    if batch is None and dynamo:
        free = {"dynamic_shapes": ({0: torch.export.Dim("N")},)}
    elif batch is None:
        free = {"dynamic_axes": {"input": {0: "N"}, "output": {0: "N"}}}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (example,),
            str(path),
            dynamo=dynamo,
            opset_version=opset,
            input_names=["input"],
            output_names=["output"],
            external_data=False,
            verbose=False,
            **free,  # type: ignore[arg-type]
        )
    return path


def read(path: Path) -> NetworkFile:
    """What an import finds."""
    reader = family_of("onnx:").read_network
    assert reader is not None
    return reader(path)


def network(path: Path) -> nn.Module:
    """As it is rebuilt from a run."""
    found = read(path)
    assert found.num_classes == CLASSES
    model = build_model(found.arch, CLASSES).eval()
    load_state(model, found.state, str(path))
    return model


def spec_of(height: int = HEIGHT, width: int = WIDTH) -> ModelSpec:
    """Of a bundle of such a network."""
    return model_spec("onnx:small", {}, NAMES, Preprocessing(height, width))


def external(folder: Path, location: str) -> Path:
    """A file whose weights are in w.bin, and which says that they are at `location`."""
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
