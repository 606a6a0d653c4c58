"""A small graph, and engines of it and others by TensorRT-RTX, which builds without a GPU."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from samdeploy.export.tensorrt.build import BuiltEngine, build_engine


def tiny_graph(kind: type[np.generic] = np.float16, *, image: str = "image", batch: int | str = "N") -> onnx.ModelProto:
    """Cast, Conv, GlobalAveragePool, Gemm: 8x8 pixels to 3 logits, all layers in `kind`."""
    random = np.random.default_rng(0)
    kernel = onnx.numpy_helper.from_array(random.standard_normal((4, 3, 3, 3)).astype(kind), "kernel")
    head = onnx.numpy_helper.from_array(random.standard_normal((3, 4)).astype(kind), "head")
    node = onnx.helper.make_node
    nodes = [
        node("Cast", [image], ["pixels"], "cast", to=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))),
        node("Transpose", ["pixels"], ["nchw"], "nchw", perm=[0, 3, 1, 2]),
        node("Conv", ["nchw", "kernel"], ["features"], "stem", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["features"], ["mean"], "pool"),
        node("Flatten", ["mean"], ["flat"], "flatten"),
        node("Gemm", ["flat", "head"], ["scores"], "fc", transB=1),
        node("Cast", ["scores"], ["logits"], "out", to=onnx.TensorProto.FLOAT),
    ]
    inputs = [onnx.helper.make_tensor_value_info(image, onnx.TensorProto.UINT8, [batch, 8, 8, 3])]
    outputs = [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [batch, 3])]
    graph = onnx.helper.make_graph(nodes, "tiny", inputs, outputs, [kernel, head])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def rtx_engine(model: onnx.ModelProto | bytes, **arguments: object) -> BuiltEngine:
    graph = model if isinstance(model, bytes) else model.SerializeToString()
    return build_engine(graph, **{"engine": "trt-rtx", "target": "SM86", **arguments})  # type: ignore[arg-type]
