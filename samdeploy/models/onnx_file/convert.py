"""From a given ONNX file to the graph of a bundle: its nodes, for any number of images, behind the pixels."""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import TYPE_CHECKING

import onnx
import onnx.helper
import onnx.numpy_helper

import samdeploy
from samdeploy.bundle.spec import ModelSpec
from samdeploy.graphs.edit import checked, fold_transposes, make_node, with_outputs
from samdeploy.graphs.pixels import NORMALISED, pixel_nodes
from samdeploy.models.onnx_file.batch import expand_constants, free_batch, shapes_of_one_run, values_of_one_run
from samdeploy.models.onnx_file.interface import Interface, interface_of
from samdeploy.models.onnx_file.opset import of_bundle_opset
from samdeploy.models.onnx_file.read import given_model, takes_mean

if TYPE_CHECKING:
    import onnx_ir

LOGITS = "logits"
# What nodes and tensors of a bundle's graph are called, beside those of the file.
_RESERVED = ("pixels", "image", "cam", LOGITS)


def bundle_graph(content: bytes, spec: ModelSpec) -> onnx.ModelProto:
    """uint8 [N, H, W, 3] RGB -> logits float32 [N, K], in FP32.

    Raises:
        InputError: see `float_graph`.
        ExportError: ONNX's checker refuses it.
    """
    graph = float_graph(content)
    pixels, values = pixel_nodes(spec.input.name, spec.preprocessing)
    image, logits = (
        onnx.helper.make_tensor_value_info(tensor.name, kind, tensor.shape)
        for tensor, kind in ((spec.input, onnx.TensorProto.UINT8), (spec.output, onnx.TensorProto.FLOAT))
    )
    nodes, weights = [*pixels, *graph.graph.node], [*values, *graph.graph.initializer]
    return checked(
        onnx.helper.make_model(
            onnx.helper.make_graph(nodes, spec.arch, [image], [logits], weights),
            opset_imports=graph.opset_import,
            ir_version=graph.ir_version,
            producer_name="samdeploy",
            producer_version=samdeploy.__version__,
        )
    )


def float_graph(content: bytes) -> onnx.ModelProto:
    """`NORMALISED` float32 [N, 3, H, W] -> `LOGITS` float32 [N, K], for any N.

    Raises:
        InputError: an opset that is not read, or a node that stands for a fixed number of images.
    """
    model = given_model(content)
    own = interface_of(model)
    shapes = shapes_of_one_run(model, own)
    model = with_outputs(model, [own.logits])
    rank = len(shapes[own.logits])
    _declare(model.graph.output, own.logits, [None] * rank)
    model = _with_constants_lifted(_standardised(model, own))
    if own.batch is not None:
        free_batch(model, shapes)
        model = _folded(model)
        expand_constants(model, own.batch)
    model = _optimized(of_bundle_opset(model))
    fold_transposes(model)
    _name_ends(model, own, rank)
    _name_nodes(model)
    return model


def _standardised(model: onnx.ModelProto, own: Interface) -> onnx.ModelProto:
    """BatchNormalizations in training mode, which have no images here but weights, become the weights they give."""
    nodes = {node.output[0]: node for node in model.graph.node if takes_mean(node)}
    for name, value in (values_of_one_run(model, own, list(nodes)) if nodes else {}).items():
        model.graph.node.remove(nodes[name])
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return model


def _with_constants_lifted(model: onnx.ModelProto) -> onnx.ModelProto:
    """Constants become weights, and weights that older files also list as inputs are only weights."""
    import onnx_ir.passes.common

    known = onnx_ir.serde.deserialize_model(model)
    onnx_ir.passes.common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(known)
    onnx_ir.passes.common.RemoveInitializersFromInputsPass()(known)
    lifted = onnx_ir.serde.serialize_model(known)
    lifted.ir_version = max(lifted.ir_version, 4)  # the first in which weights are no inputs
    del lifted.graph.value_info[:]  # shapes of the file's own batch
    return lifted


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """What depends on no image is computed.

    Shapes are not looked at: those behind a constant for one image would be of one image.
    """
    import onnx_ir
    import onnxscript.optimizer

    known = onnx_ir.serde.deserialize_model(model)
    onnxscript.optimizer.fold_constants(known, onnx_shape_inference=False, should_fold=_of_shapes)
    return _with_constants_lifted(onnx_ir.serde.serialize_model(known))


def _optimized(model: onnx.ModelProto) -> onnx.ModelProto:
    """What depends on no image is computed; identities and what nothing reads are left out; some nodes are joined."""
    import onnx_ir
    import onnxscript.optimizer

    known = onnx_ir.serde.deserialize_model(model)
    try:
        onnxscript.optimizer.optimize_ir(known, should_fold=_of_shapes)
    except onnx_ir.passes.PassError:  # some of its rules fail on graphs they do not expect; no node need be joined
        return _folded(model)
    return onnx_ir.serde.serialize_model(known)


def _of_shapes(node: onnx_ir.Node) -> bool | None:
    """Left alone by default, for the size of what it makes; older exporters write class tokens by it."""
    return True if node.op_type == "ConstantOfShape" else None


def _name_ends(model: onnx.ModelProto, own: Interface, rank: int) -> None:
    """Input and output get a bundle's names and shapes; tensors of the file that have such names get others."""
    ends = {own.input: NORMALISED, own.logits: LOGITS}
    if own.channels_last:
        ends[own.input] = f"{NORMALISED}.nhwc"
    if rank == 4:
        ends[own.logits] = f"{LOGITS}.unflattened"

    def renamed(name: str) -> str:
        return ends.get(name) or (f"file.{name}" if name.split(".")[0] in _RESERVED else name)

    for node in model.graph.node:
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
    for tensor in model.graph.initializer:
        tensor.name = renamed(tensor.name)
    if own.channels_last:
        model.graph.node.insert(0, make_node("Transpose", ends[own.input], [NORMALISED], perm=[0, 2, 3, 1]))
    if rank == 4:
        model.graph.node.append(make_node("Flatten", LOGITS, [ends[own.logits]], axis=1))
    _declare(model.graph.input, NORMALISED, ["N", 3, own.height, own.width])
    _declare(model.graph.output, LOGITS, ["N", None])
    del model.graph.value_info[:]


def _declare(values: MutableSequence[onnx.ValueInfoProto], name: str, shape: Sequence[int | str | None]) -> None:
    """One float32 tensor instead of `values`."""
    del values[:]
    values.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))


def _name_nodes(model: onnx.ModelProto) -> None:
    """Every node has a name of its own, and nothing is noted about the machine that wrote the file."""
    taken: set[str] = set()
    for item in (*model.graph.node, *model.graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    for node in model.graph.node:
        name = node.name or node.output[0]
        name = f"file.{name}" if name.split(".")[0] in _RESERVED and not node.output[0].startswith(_RESERVED) else name
        node.name = name if name not in taken else node.output[0]
        while node.name in taken:
            node.name += ".2"
        taken.add(node.name)
