"""The intermediate tensors of an engine, for finding where it departs from the trained network.

>>> images = bundle.golden()[0]
>>> expected = reference_tensors(bundle, images)
>>> found = engine_tensors(bundle, "onnxruntime", "fp32", images, expected.values)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.backends.names import check_names, check_supported
from samdeploy.backends.reference import parse_graph
from samdeploy.backends.registry import load_module
from samdeploy.backends.session import pick_file
from samdeploy.errors import BackendUnavailable

if TYPE_CHECKING:
    from samdeploy.backends.onnxruntime import session as onnxruntime
    from samdeploy.backends.openvino import session as openvino
    from samdeploy.bundle import Bundle

    # Lets mypy prove that each module keeps the promise of `TensorBackend`.
    _onnxruntime: TensorBackend = onnxruntime
    _openvino: TensorBackend = openvino

_WITHOUT = {
    "pytorch": "pytorch is what the engines are compared with, and has no graph of its own",
    "tensorrt": "a TensorRT engine is built with its logits as the only output and does not let its intermediate "
    "tensors out, with or without a GPU; explain the graph it was built from with --backend onnxruntime",
}


@dataclass(frozen=True, slots=True)
class EngineTensors:
    """What an engine's graph computes on its way.

    Attributes:
        backend, precision: of the engine.
        device: "cpu" or "cuda", where it ran.
        graph_precision: "fp32", "fp16" or "int8": which graph of the bundle it is.
        values: name -> float32 [N, ...], in the order of the graph; stored as the graph stores them.
        sources: name -> the tensors among `values` that it is computed from, through whatever lies between.
    """

    backend: str
    precision: str
    device: str
    graph_precision: str
    values: dict[str, Float32Array]
    sources: dict[str, tuple[str, ...]]


class TensorBackend(Protocol):
    """What the module of a runtime offers for intermediate tensors."""

    def graph_precision(self, precision: str) -> str:
        """Which of the bundle's graphs the runtime opens to compute in `precision`."""
        ...

    def run_outputs(self, graph: bytes, device: str, precision: str, batch: UInt8Array) -> tuple[list[Any], str]:
        """Every output of a graph, as arrays in its order, and "cpu" or "cuda"; opened as `load` opens it."""
        ...


def engine_tensors(
    bundle: Bundle, backend: str, precision: str, images: UInt8Array, names: Collection[str], *, device: str = "auto"
) -> EngineTensors:
    """Run the engine's graph in its own runtime with its intermediate tensors as outputs.

    A tensor that is an output cannot be fused away, so the runtime may compute in other steps than in the engine
    itself: a fault of a fusion does not show here.

    Args:
        bundle: from `open_bundle`.
        backend: "onnxruntime" or "openvino".
        precision: as for `open_session`.
        images: uint8 [N, H, W, 3], RGB.
        names: tensors that are wanted; those that the graph lacks are left out.
        device: "cpu", "cuda" or "auto".

    Raises:
        InputError: an unknown backend, device or precision, or one that this backend never has.
        BackendUnavailable: the runtime cannot run this graph here, or lets no tensors out.
        BundleError: the graph was changed.
    """
    check_names(backend, device, precision)
    if backend in _WITHOUT:
        raise BackendUnavailable(_WITHOUT[backend])
    check_supported(backend, device, precision)
    module = cast(TensorBackend, load_module(backend))
    graph_precision = module.graph_precision(precision)
    model = parse_graph(bundle.read(pick_file(bundle, "graph", backend, graph_precision)))
    wanted = _watch(model, names)
    values, device = module.run_outputs(model.SerializeToString(), device, precision, images)
    arrays = {name: np.asarray(value, np.float32) for name, value in zip(wanted, values, strict=True)}
    return EngineTensors(backend, precision, device, graph_precision, arrays, _sources(model, wanted))


def _watch(model: Any, names: Collection[str]) -> dict[str, str]:
    """Make tensors the outputs of a parsed graph: name -> the output that holds it, in the order of `names`.

    Where a tensor is quantised, what counts is what the next layer reads: the value after Q and DQ, in which a ReLU
    that the quantiser took for itself is applied, and what lies outside the range is cut off.
    """
    import onnx

    makers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def after(name: str, operator: str) -> str | None:
        return next((node.output[0] for node in readers.get(name, ()) if node.op_type == operator), None)

    wanted: dict[str, str] = {}
    for name in names:
        quantized = after(name, "QuantizeLinear")
        dequantized = after(quantized, "DequantizeLinear") if quantized else None
        if name in makers:
            wanted[name] = dequantized or name
    kept = {output.name: output for output in model.graph.output}
    del model.graph.output[:]
    model.graph.output.extend(
        kept.get(name) or onnx.helper.make_empty_tensor_value_info(name) for name in wanted.values()
    )
    return wanted


def _sources(model: Any, wanted: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Of each tensor the nearest wanted ones before it."""
    makers = {name: node for node in model.graph.node for name in node.output}
    names = {output: name for name, output in wanted.items()} | {name: name for name in wanted}

    def before(name: str) -> list[str]:
        """The nearest wanted tensors that `name` is made from."""
        return [source for read in makers[name].input if read in makers
                for source in ([names[read]] if read in names else before(read))]  # fmt: skip

    return {name: tuple(dict.fromkeys(before(name))) for name in wanted}
