"""FP16 as a GPU computes it, on a CPU that cannot."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.export.fp16.convert import FLOAT, HALF
from samdeploy.graphs.edit import copy_of, make_node, serialize, set_constant
from samdeploy.graphs.inference import Options, run_graph
from samdeploy.graphs.shapes import infer_tensors


def emulate_fp16(model: onnx.ModelProto, images: UInt8Array) -> Float32Array:
    """Logits float32 [n, K] of an FP16 graph for uint8 [n, H, W, 3]; see `emulation`."""
    (logits,), _ = run_graph(serialize(emulation(model)), images, Options(optimized=False))
    return np.asarray(logits, np.float32)


def emulation(model: onnx.ModelProto) -> onnx.ModelProto:
    """An FP16 graph in FP32 arithmetic, with every FP16 tensor rounded as it is stored.

    That is how FP16 kernels on a GPU work (FP32 accumulation), node by node; kernels that fuse several nodes round
    less often.  A value above 65,504 becomes infinite, as it would there.  ONNX Runtime takes casts to FP16 and back
    out unless its optimisations are off.
    """
    types = infer_tensors(model)
    emulated = copy_of(model)
    del emulated.graph.node[:], emulated.graph.value_info[:]
    for tensor in emulated.graph.initializer:
        if tensor.data_type == HALF:
            set_constant(tensor, onnx.numpy_helper.to_array(tensor).astype(np.float32))
    for node in model.graph.node:
        exact = emulated.graph.node.add()
        exact.CopyFrom(node)
        for index, name in enumerate(node.output):
            if name and types[name].type == HALF:
                exact.output[index] = f"{name}.exact"
                emulated.graph.node.extend(rounding(f"{name}.exact", name))
    return emulated


def rounding(name: str, rounded: str) -> list[onnx.NodeProto]:
    """Nodes that round the tensor `name` to FP16; their result is FP32."""
    half = f"{rounded}.half"
    return [
        make_node("Cast", half, [name], to=HALF),
        make_node("Cast", f"{rounded}.rounded", [half], rounded, to=FLOAT),
    ]
