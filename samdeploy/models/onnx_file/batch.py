"""A graph that was written for a fixed number of images, made one for any number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
from numpy.typing import NDArray

from samdeploy.errors import InputError
from samdeploy.graphs.edit import constants, integers, make_node, with_outputs
from samdeploy.graphs.inference import Options, open_inference, run_inference
from samdeploy.graphs.layers import on_the_way
from samdeploy.models.onnx_file.interface import Interface


def shapes_of_one_run(model: onnx.ModelProto, own: Interface) -> dict[str, tuple[int, ...]]:
    """Shapes of the logits and of what Reshape makes, for the file's own batch or one image."""
    made = {node.output[0] for node in model.graph.node if node.op_type == "Reshape"}
    return {name: value.shape for name, value in values_of_one_run(model, own, sorted({own.logits, *made})).items()}


def values_of_one_run(model: onnx.ModelProto, own: Interface, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Tensors of the graph for black images, node by node, by name."""
    sides = (own.height, own.width, 3) if own.channels_last else (3, own.height, own.width)
    inference = open_inference(with_outputs(model, names).SerializeToString(), Options(optimized=False, quiet=True))
    values = run_inference(inference, {own.input: np.zeros((own.batch or 1, *sides), np.float32)})
    return dict(zip(names, values, strict=True))


def free_batch(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> None:
    """Any number of images instead of the file's: the first axis of a Reshape becomes what is left over.

    A Reshape to one axis and a Gather, as PyTorch's exporter writes `as_strided`, become ones per image.
    """
    first_axis = model.graph.input[0].type.tensor_type.shape.dim[0]
    batch, first_axis.dim_param = first_axis.dim_value, "N"
    images, known = on_the_way(model), constants(model)
    flat: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "Reshape" and node.input[0] in images and integers(model, node.input[1]) is not None:
            first, *rest = shapes[node.output[0]]
            if not rest and not first % batch:
                flat.add(node.output[0])
                rest = [first // batch]
            _set_input(model, node, 1, np.array([-1, *rest], np.int64))
        elif node.op_type == "Gather" and node.input[0] in flat and node.input[1] in known:
            places = onnx.numpy_helper.to_array(known[node.input[1]])
            del node.attribute[:]
            node.attribute.append(onnx.helper.make_attribute("axis", 1))
            _set_input(model, node, 1, places[0])


def _set_input(model: onnx.ModelProto, node: onnx.NodeProto, index: int, value: NDArray[Any]) -> None:
    """A constant for this node alone."""
    node.input[index] = f"{node.output[0]}.free"
    model.graph.initializer.append(onnx.numpy_helper.from_array(value, node.input[index]))


def expand_constants(model: onnx.ModelProto, batch: int) -> None:
    """Constants that are joined to every image, such as class tokens, are repeated for as many as there are."""
    images, known = on_the_way(model), constants(model)
    for index, node in reversed(list(enumerate(model.graph.node))):
        source = next((name for name in node.input if name in images), None)
        axis = next((value.i for value in node.attribute if value.name == "axis"), 0)
        if node.op_type != "Concat" or source is None or axis == 0:
            continue
        for place, name in enumerate(node.input):
            if name not in known or known[name].dims[0] != batch:
                continue
            value = onnx.numpy_helper.to_array(known[name])
            if (value != value[:1]).any():
                raise InputError(f"{node.op_type} ({node.name}) joins another constant to each of {batch} images")
            stem = f"{node.output[0]}.{place}"
            rest = np.array(value.shape[1:], np.int64)
            model.graph.initializer.extend(
                onnx.numpy_helper.from_array(array, f"{stem}.{role}")
                for role, array in (("one", value[:1]), ("rest", rest), ("first", np.zeros(1, np.int64)))
            )
            lengths = make_node("Shape", f"{stem}.lengths", [source])
            count = make_node("Gather", f"{stem}.count", [f"{stem}.lengths", f"{stem}.first"])
            shape = make_node("Concat", f"{stem}.shape", [f"{stem}.count", f"{stem}.rest"], axis=0)
            repeated = make_node("Expand", f"{stem}.repeated", [f"{stem}.one", f"{stem}.shape"])
            for added in (repeated, shape, count, lengths):
                model.graph.node.insert(index, added)
            node.input[place] = f"{stem}.repeated"
