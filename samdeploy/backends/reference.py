"""The trained network as a graph of its own, written anew from the weights in a bundle, with all tensors in reach.

What an engine computes on its way is compared with these; the bundle's own graphs are what is in doubt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.backends.registry import load_module
from samdeploy.errors import BackendUnavailable

if TYPE_CHECKING:
    import onnx

    from samdeploy.bundle import Bundle

# Images per run: all tensors of each are held.
_CHUNK = 4


@dataclass(frozen=True, slots=True)
class Step:
    """What makes a tensor.

    Attributes:
        operator: of the node, such as "Conv".
        inputs: tensors computed from the image that it reads.
        has_weights: it also reads trained numbers.
    """

    operator: str
    inputs: tuple[str, ...]
    has_weights: bool


@dataclass(frozen=True, slots=True)
class NetworkTensors:
    """Every tensor that the trained network computes from images.

    Attributes:
        values: name -> float32 [N, ...], in the order of the graph.
        steps: name -> what makes it.
        normalisation: names of those before the first layer, in order.
    """

    values: Mapping[str, Float32Array]
    steps: Mapping[str, Step]
    normalisation: tuple[str, ...]


def reference_name(bundle: Bundle) -> str:
    """What computes the trained network, for people: "PyTorch", or "the ONNX file" that was imported.

    Raises:
        BackendUnavailable: PyTorch is missing.
    """
    return cast(str, cast(Any, load_module("pytorch")).reference_name(bundle))


def trained_graph(bundle: Bundle) -> onnx.ModelProto:
    """The FP32 graph of the trained network, from the weights in the bundle.

    Raises:
        BackendUnavailable: PyTorch or onnx is missing, or the bundle has no weights.
        BundleError, WeightsError: the weights were changed, or are not the architecture's.
    """
    module = cast(Any, load_module("pytorch"))
    try:
        return cast("onnx.ModelProto", module.trained_graph(bundle))
    except ModuleNotFoundError as error:
        raise BackendUnavailable(_missing(error)) from error


def reference_tensors(bundle: Bundle, images: UInt8Array) -> NetworkTensors:
    """Every tensor of the trained network, computed node by node in float32.

    Args:
        images: uint8 [N, H, W, 3], RGB.

    Raises:
        BackendUnavailable: as `trained_graph`, or ONNX Runtime is missing.
        BundleError, WeightsError: as `trained_graph`.
    """
    return graph_tensors(trained_graph(bundle), images)


def graph_tensors(model: onnx.ModelProto, images: UInt8Array) -> NetworkTensors:
    """`reference_tensors` of any FP32 graph."""
    from samdeploy.graphs.layers import find_layers, on_the_way

    reached = set(on_the_way(model))
    steps = {
        output: Step(
            node.op_type,
            tuple(name for name in node.input if name in reached),
            _has_weights(model, node.input),
        )
        for node in model.graph.node
        for output in node.output
        if output in reached
    }
    before = set(find_layers(model).pixels.nodes)
    normalisation = tuple(name for node in model.graph.node if node.name in before for name in node.output)
    return NetworkTensors(run_exactly(model, steps, images), steps, normalisation)


def run_exactly(model: onnx.ModelProto, names: Iterable[str], images: UInt8Array) -> dict[str, Float32Array]:
    """Tensors of a graph, by ONNX Runtime with its optimisations off: each node by itself, as it is written.

    Args:
        names: of the tensors.
        images: uint8 [N, H, W, 3], RGB.

    Returns:
        name -> float32 [N, ...], in the order of `names`.

    Raises:
        BackendUnavailable: ONNX Runtime is missing, or refuses the graph.
    """
    from samdeploy.graphs.edit import with_outputs

    load_module("onnxruntime")  # says how to get it
    from samdeploy.graphs.inference import Options, open_inference, run_inference

    wanted = list(names)
    inference = open_inference(with_outputs(model, wanted).SerializeToString(), Options(optimized=False))
    source = model.graph.input[0].name
    parts = [
        run_inference(inference, {source: images[start : start + _CHUNK]}) for start in range(0, len(images), _CHUNK)
    ]
    return {
        name: np.concatenate(values).astype(np.float32, copy=False)
        for name, values in zip(wanted, zip(*parts, strict=True), strict=True)
    }


def parse_graph(graph: bytes) -> onnx.ModelProto:
    """An ONNX file.

    Raises:
        BackendUnavailable: onnx is missing.
    """
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise BackendUnavailable(_missing(error)) from error
    return onnx.load_from_string(graph)


def _missing(error: ModuleNotFoundError) -> str:
    return (
        f"the tensors of a graph need the package {error.name!r}, which is not installed; "
        "pip install 'samdeploy[export]'"
    )


def _has_weights(model: onnx.ModelProto, inputs: Iterable[str]) -> bool:
    """Single numbers, such as the ends of a Clip, and the integers of shapes are no weights."""
    from samdeploy.graphs.edit import constants

    known = constants(model)
    return any(known[name].data_type == 1 and np.prod(known[name].dims) > 1 for name in inputs if name in known)
