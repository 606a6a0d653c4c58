"""The ONNX graph of any PyTorch network, as PyTorch's own exporter writes it, in a form that does not change.

Two exports of the same weights give the same bytes: nodes and tensors are called after the modules they come from, and
nothing else is kept of what the exporter notes about itself, the machine and the sources.
"""

from __future__ import annotations

import ast
from collections import defaultdict

import onnx
import onnx.defs
import onnx.helper
from torch import nn

import samdeploy
from samdeploy.bundle.spec import ModelSpec
from samdeploy.errors import ExportError
from samdeploy.graphs.edit import attribute, checked, fold_transposes
from samdeploy.graphs.layers import WEIGHTED, pooled_axes
from samdeploy.graphs.pixels import NORMALISED, pixel_nodes
from samdeploy.graphs.shapes import infer_tensors
from samdeploy.models.exporters import OPSET, SCOPES, exported

IR_VERSION = 8  # which every runtime release reads that samdeploy supports
_PARAMETERS = {("Conv", 1): "weight", ("Conv", 2): "bias", ("Gemm", 1): "weight", ("Gemm", 2): "bias"}


def graph_from_module(module: nn.Module, spec: ModelSpec) -> onnx.ModelProto:
    """`module`, float32 [N, 3, H, W] -> [N, K], behind the normalisation: uint8 [N, H, W, 3] RGB -> logits, in FP32.

    Raises:
        ExportError: PyTorch cannot export it, it holds control flow, or ONNX's checker refuses it.
    """
    model = exported(module, spec)
    _name_pools(model)
    fold_transposes(model)
    graph = model.graph
    if any(value.HasField("g") for node in graph.node for value in node.attribute):
        raise ExportError(f"graph: {spec.arch} decides by what it sees (If or Loop), which cannot be exported")
    _rename(graph, module)
    pixels, constants = pixel_nodes(spec.input.name, spec.preprocessing)
    used = {name for node in graph.node for name in node.input}
    weights = sorted((tensor for tensor in graph.initializer if tensor.name in used), key=lambda tensor: tensor.name)
    for item in (*graph.node, *weights):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    image, logits = (
        onnx.helper.make_tensor_value_info(tensor.name, kind, tensor.shape)
        for tensor, kind in ((spec.input, onnx.TensorProto.UINT8), (spec.output, onnx.TensorProto.FLOAT))
    )
    return checked(
        onnx.helper.make_model(
            onnx.helper.make_graph([*pixels, *graph.node], spec.arch, [image], [logits], [*constants, *weights]),
            opset_imports=[onnx.helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="samdeploy",
            producer_version=samdeploy.__version__,
        )
    )


def _name_pools(model: onnx.ModelProto) -> None:
    """Write the mean over height and width as what it is.

    ONNX Runtime quantises GlobalAveragePool and leaves ReduceMean in float: `seresnet50` in INT8 is 1.6 times as fast.
    """
    shapes = infer_tensors(model)
    for node in model.graph.node:
        if node.op_type != "ReduceMean" or pooled_axes(model, node) != (2, 3):
            continue
        if attribute(node, "keepdims", 1) and len(shapes[node.input[0]].shape) == 4:
            node.op_type = "GlobalAveragePool"
            del node.attribute[:], node.input[1:]


def _rename(graph: onnx.GraphProto, module: nn.Module) -> None:
    """Call nodes after their modules, and tensors after the nodes that make them or are the first to read them."""
    kept = {NORMALISED, *(value.name for value in graph.output)}
    taken, renamed = set(kept), {name: name for name in (*kept, *module.state_dict())}
    constants = {tensor.name for tensor in graph.initializer}
    for node, name in zip(graph.node, _node_names(graph, module), strict=True):
        node.name = _free(name, taken)
        for index, tensor in enumerate(node.input):
            if tensor in constants and tensor not in renamed:
                renamed[tensor] = _free(f"{node.name}.{_role(node, index)}", taken)
        for index, tensor in enumerate(node.output):
            if tensor not in renamed:
                renamed[tensor] = _free(f"{node.name}.{index}", taken) if index else node.name
    for node in graph.node:
        node.input[:] = [renamed[tensor] if tensor else "" for tensor in node.input]
        node.output[:] = [renamed[tensor] if tensor else "" for tensor in node.output]
    for weight in graph.initializer:
        weight.name = renamed.get(weight.name, weight.name)


def _node_names(graph: onnx.GraphProto, module: nn.Module) -> list[str]:
    """Module by module: "layer1.0.conv1"; with the operator where a module is more than one: "layer1.0.add"."""
    places = _places(graph, module)
    operators = defaultdict[str, set[str]](set)
    for place, node in zip(places, graph.node, strict=True):
        operators[place].add(node.op_type)
    leaves = {name for name, part in module.named_modules() if not any(True for _ in part.children())}
    whole = {place for place in places if place in leaves and len(operators[place]) == 1}
    return [
        place if place in whole else ".".join(filter(None, (place, node.op_type.lower())))
        for place, node in zip(places, graph.node, strict=True)
    ]


def _places(graph: onnx.GraphProto, module: nn.Module) -> list[str]:
    """For each node the module that it comes from, "" for the network itself."""
    known = {name for name, _ in module.named_modules()}
    found = []
    for node in graph.node:
        # Of equal weights, such as those of fresh norms, the exporter keeps one.
        read = node.input if node.op_type in WEIGHTED else []
        weights = [name.removesuffix(".weight") for name in read if name.endswith(".weight")]
        noted = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
        # A batch norm that was folded into a convolution left its place there; the weight is still the convolution's.
        scopes = weights or [name for name in ast.literal_eval(noted) if name in known]
        found.append(scopes[-1] if scopes else "")
    return found


def _role(node: onnx.NodeProto, index: int) -> str:
    """What a constant is to the node that reads it: "weight", "axes", "shape"."""
    if (node.op_type, index) in _PARAMETERS:
        return _PARAMETERS[node.op_type, index]
    inputs = onnx.defs.get_schema(node.op_type, OPSET, node.domain).inputs
    return str(inputs[min(index, len(inputs) - 1)].name).lower()


def _free(name: str, taken: set[str]) -> str:
    """`name`, or with ".2", ".3", ... where that is taken; it is taken now."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}.{number}"
    taken.add(free)
    return free
