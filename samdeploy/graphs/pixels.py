"""The start of every graph: uint8 NHWC pixels become normalised floats, in nodes and tensors of the same names."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from samdeploy.bundle.spec import Preprocessing
from samdeploy.graphs.edit import make_node

# Of the layer that normalises; its nodes and tensors are called "pixels" or "pixels.something".
PIXELS = "pixels"
NORMALISED = "pixels.shifted"


def pixel_nodes(image: str, preprocessing: Preprocessing) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes and constants from uint8 [N, H, W, 3] to `NORMALISED`, float32 [N, 3, H, W].

    ``x * scale + shift``, with both constants formed in float64: see `samdeploy.models.graph.Normalize`.

    Args:
        image: name of the graph's input.
        preprocessing: has the mean and the standard deviation of each channel.
    """
    mean, std = (np.array(values, np.float64).reshape(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    # TensorRT allows uint8 only up to the first Cast, so the transposition comes after it.
    nodes = [
        make_node("Cast", PIXELS, [image], to=onnx.TensorProto.FLOAT),
        make_node("Transpose", "pixels.nchw", [PIXELS], perm=[0, 3, 1, 2]),
        make_node("Mul", "pixels.scaled", ["pixels.nchw", "pixels.scale"]),
        make_node("Add", NORMALISED, ["pixels.scaled", "pixels.shift"]),
    ]
    constants = {"pixels.scale": 1 / (255 * std), "pixels.shift": -mean / std}
    return nodes, [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
