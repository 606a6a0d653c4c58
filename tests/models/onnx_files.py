"""Small classifiers as ONNX files, written node by node and by PyTorch's exporters."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import torch
from torch import nn

HEIGHT, WIDTH, CLASSES = 8, 12, 3
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
