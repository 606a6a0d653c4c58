"""In which type a TensorRT network, and the engine made of it, does its multiplications.

Counted are convolutions and matrix products, each with its weight: multiply-adds per image.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from samdeploy.errors import ExportError
from samdeploy.export.int8.search import MIN_INT8_SHARE

# The type of arithmetic, by the name of TensorRT's DataType.
TYPES = {"fp16": "HALF", "fp32": "FLOAT", "bf16": "BF16", "int8": "INT8"}
# The same in the engine inspector's words: names of types, and of formats as TensorRT 10 writes them.
_INSPECTED = {
    "HALF": ("half", "fp16", "float16"),
    "FLOAT": ("float", "fp32", "float32"),
    "BF16": ("bfloat16", "bf16"),
    "INT8": ("int8",),
}
# Engine layers that move or convert data and compute nothing.
_COPIES = ("Reformat", "NoOp")  # their metadata names the layer they serve
# A few layers may be kept in FP32 because FP16 does not reach; with less than this the precision is a name only.
MIN_SHARE = {"fp16": 0.95, "fp32": 0.95, "bf16": 0.95, "int8": MIN_INT8_SHARE / 100}


@dataclass(frozen=True, slots=True)
class HeavyLayer:
    """A convolution or matrix product: the ONNX node's name, its type, its multiply-adds per image."""

    name: str
    type: str
    multiply_adds: int


def heavy_layers(trt: Any, network: Any) -> list[HeavyLayer]:
    """The layers that the arithmetic of a parsed network is in."""
    found = []
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    # A quantised layer reads pixels and weights from DequantizeLinear; its output is a float and says nothing.
    dequantized = {layer.get_output(0).name for layer in layers if layer.type == trt.LayerType.DEQUANTIZE}
    for layer in layers:
        output = layer.get_output(0)
        per_image = prod(abs(int(length)) for length in tuple(output.shape)[1:])
        if layer.type == trt.LayerType.CONVOLUTION:
            layer.__class__ = trt.IConvolutionLayer  # the network gives plain ILayer objects
            channels = int(tuple(layer.get_input(0).shape)[1])
            depth = channels // int(layer.num_groups) * prod(int(length) for length in layer.kernel_size_nd)
        elif layer.type == trt.LayerType.MATRIX_MULTIPLY:
            depth = abs(int(tuple(layer.get_input(0).shape)[-1]))
        else:
            continue
        inputs = [layer.get_input(i) for i in range(min(2, layer.num_inputs))]
        quantized = len(inputs) == 2 and all(tensor is not None and tensor.name in dequantized for tensor in inputs)
        found.append(HeavyLayer(layer.name, "INT8" if quantized else output.dtype.name, per_image * depth))
    return found


def check_graph_precision(layers: Sequence[HeavyLayer], precision: str) -> str:
    """Check the types that the graph asks for; a strongly typed build keeps them.

    Returns:
        In words, such as "29 of 29 layers in fp16".

    Raises:
        ExportError: less than `MIN_SHARE` of the multiply-adds are in `precision`, or one is in neither that nor FP32.
    """
    wanted = TYPES[precision]
    foreign = [f"{layer.name} ({layer.type})" for layer in layers if layer.type not in (wanted, "FLOAT")]
    others = [f"{layer.name} ({layer.type})" for layer in layers if layer.type != wanted]
    share = _share(layers, {layer.name for layer in layers if layer.type == wanted})
    if foreign or share < MIN_SHARE[precision]:
        kinds = ", ".join(f"{count} in {kind}" for kind, count in Counter(layer.type for layer in layers).items())
        raise ExportError(
            f"{precision} was asked for, but the graph's layers are of another type: "
            f"{', '.join((foreign or others)[:3]) or 'it has none'} ({kinds or 'none'}); {share:.0%} of the "
            f"multiply-adds are in {precision}, {MIN_SHARE[precision]:.0%} expected; TensorRT keeps the types "
            f"of the graph, so export the graph in {precision}"
        )
    return f"{len(layers) - len(others)} of {len(layers)} layers in {precision}"


@dataclass(frozen=True, slots=True)
class EngineProof:
    """What the engine inspector says about the layers of the network, which is strongly typed and decides.

    Attributes:
        confirmed: the engine shows the asked-for type for at least `MIN_SHARE` of the multiply-adds.
        note: how many layers the engine shows in which state, or why its description could not be read.
    """

    confirmed: bool
    note: str


def check_engine_precision(information: str, layers: Sequence[HeavyLayer], precision: str) -> EngineProof:
    """Look for each layer in the engine, as the engine inspector describes it, and check its type there.

    A layer counts as right where the engine shows the asked-for type alone: that of its weights, else of all its
    tensors.  It counts as wrong where that is another type and cannot come from the border of a larger fusion.  Mixed
    types and layers that are not listed under their names are unknown.  Reformats are never looked at, although they
    name the layer that they serve.

    Args:
        information: the inspector's JSON, of an engine built with DETAILED verbosity.
        layers: of the network that the engine was built from.

    Raises:
        ExportError: layers with more than 1 - `MIN_SHARE` of the multiply-adds were built in another type.
    """
    try:
        # Layer names and metadata of real networks hold control characters, which strict JSON forbids.
        entries = json.loads(information, strict=False)["Layers"]
        described = [entry for entry in entries if isinstance(entry, dict) and entry.get("LayerType") not in _COPIES]
    except (ValueError, KeyError, TypeError) as error:
        because = f"{type(error).__name__}: {error}" if information else "it is empty"
        return EngineProof(False, f"the inspector's description of the engine cannot be read ({because})")
    right, wrong = set(), {}
    parts = [[layer.name for layer in layers if _mentions(entry, layer.name)] for entry in described]
    for layer in layers:
        found = [
            _evidence(entry, len(names)) for entry, names in zip(described, parts, strict=True) if layer.name in names
        ]
        kinds = {kind for kind, _ in found}
        if kinds == {TYPES[precision]}:
            right.add(layer.name)
        elif len(kinds) == 1 and all(kind and alone for kind, alone in found):
            wrong[layer.name] = kinds.pop()
    if _share(layers, set(wrong)) > 1 - MIN_SHARE[precision]:
        shown = ", ".join(f"{name} ({kind})" for name, kind in list(wrong.items())[:3])
        raise ExportError(
            f"{precision} was asked for, but TensorRT built {len(wrong)} of {len(layers)} layers in another type: "
            f"{shown}; please report this with TensorRT's version"
        )
    unknown = len(layers) - len(right) - len(wrong)
    counts = [f"{len(right)} of {len(layers)} layers in {precision}"]
    counts += [f"{len(wrong)} in another type"] if wrong else []
    counts += [f"{unknown} unknown"] if unknown else []
    return EngineProof(_share(layers, right) >= MIN_SHARE[precision], f"the engine shows {', '.join(counts)}")


def _share(layers: Sequence[HeavyLayer], names: set[str]) -> float:
    total = sum(layer.multiply_adds for layer in layers)
    return sum(layer.multiply_adds for layer in layers if layer.name in names) / total if total else 0.0


def _mentions(entry: Mapping[str, Any], name: str) -> bool:
    """Whether an engine layer was made of the ONNX node: by its metadata, else as one of the parts of its name."""
    if f"[ONNX Layer: {name}]" in str(entry.get("Metadata", "")):
        return True
    parts = str(entry.get("Name", "")).replace(" || ", " + ").split(" + ")
    return name in (part.strip() for part in parts)


def _evidence(entry: Mapping[str, Any], heavy: int) -> tuple[str, bool]:
    """The one type that an engine layer works in ("" where it is mixed or not stated), and whether it is sure.

    The weights' type is sure.  The types of its tensors are those at its border: where several layers were fused into
    one, such as the whole network between pixels and logits, they do not tell what is inside.
    """
    weights = entry.get("Weights")
    kinds = _kinds(str(weights.get("Type", ""))) if isinstance(weights, dict) else set()
    sure = bool(kinds) or heavy == 1
    kinds = kinds or _tensor_types(entry)
    return (kinds.pop() if len(kinds) == 1 else ""), sure


def _tensor_types(entry: Mapping[str, Any]) -> set[str]:
    """Types of an engine layer's tensors, under the keys of TensorRT 10 ("Format/Datatype") and 11 ("Datatype").

    Empty where they read "N/A due to dynamic shapes".
    """
    tensors = [t for key in ("Inputs", "Outputs") for t in entry.get(key) or [] if isinstance(t, dict)]
    keys = ("Format/Datatype", "Datatype", "DataType", "Format")
    return {kind for tensor in tensors for key in keys for kind in _kinds(str(tensor.get(key, "")))}


def _kinds(text: str) -> set[str]:
    words = set("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())
    return {kind for kind, names in _INSPECTED.items() if words & set(names)}
