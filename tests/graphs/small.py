"""Graphs of a few nodes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx.shape_inference

from samdeploy.bundle.spec import Preprocessing
from samdeploy.graphs.pixels import pixel_nodes


def small_graph(*nodes: onnx.NodeProto, weights: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    """From uint8 [N, 8, 8, 3] through the normalisation and `nodes` to "logits"."""
    first, constants = pixel_nodes("image", Preprocessing(8, 8))
    constants += [onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()]
    graph = onnx.helper.make_graph(
        [*first, *nodes],
        "small",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["N", 8, 8, 3])],
        [onnx.helper.make_empty_tensor_value_info("logits")],
        constants,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)
