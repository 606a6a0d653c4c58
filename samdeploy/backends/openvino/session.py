"""OpenVINO on the CPU: FP32, INT8, and BF16 or FP16 where the processor computes in it.

What was asked for is proved twice: the hint that took effect, and the type that each convolution and matrix product of
the compiled network computes in.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.backends.openvino.package import import_openvino
from samdeploy.backends.session import Wanted, check_tensors
from samdeploy.bundle.spec import ModelSpec, TensorSpec, cam_spec
from samdeploy.errors import BackendUnavailable, BundleError
from samdeploy.files import SealedFile

if TYPE_CHECKING:
    pass

ov = import_openvino()

# Of the multiply-adds in convolutions and matrix products that must compute in the precision that was asked for.
MIN_SHARE = 95.0

# Which of the bundle's graphs.  The FP16 graph is scaled so that nothing leaves FP16's range; the FP32 graph under the
# hint f16 gave NaN where that had been needed.  BF16 has FP32's range and needs no graph of its own.
_GRAPHS = {"fp32": "fp32", "bf16": "fp32", "fp16": "fp16", "int8": "int8"}
# Element type of the weights of what should compute in the precision; None: all should.
_WEIGHTS = {"fp32": None, "bf16": None, "fp16": "f16", "int8": "i8"}
# What an INT8 graph leaves unquantised must stay FP32.
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
# Element types of a node that computes in a precision.
_COMPUTES_IN = {"fp32": ("f32",), "bf16": ("bf16",), "fp16": ("f16",), "int8": ("u8", "i8")}
# What is counted: operators of a graph, and the kinds of node that they become in a compiled network.  A subgraph holds
# the two products of attention with the softmax between them.
_COUNTED = ("Convolution", "MatMul")
_BECOME = ("Convolution", "FullyConnected", "MatMul", "Subgraph")
# What OpenVINO folds into the convolution or matrix product before it, whose name the fused node may lose; convolutions
# of parts of the channels, beside one another, become one of groups, with the name of their concatenation.
_FOLDED = ("Add", "Multiply", "Concat", "BatchNormInference")
_RUNTIME_INFO = ("layerType", "runtimePrecision", "originalLayersNames")
_TYPES = {"u8": "uint8", "f32": "float32", "f16": "float16", "bf16": "bfloat16"}


def unavailable() -> str | None:
    """None: the CPU plugin is part of the package."""
    return None


def load(wanted: Wanted) -> OpenvinoSession:
    """Compile one of the bundle's graphs for this CPU, computing in `precision`.

    INT8 and FP16 have graphs of their own; BF16 is OpenVINO's to apply to the FP32 graph.

    Raises:
        BackendUnavailable: no such graph, OpenVINO refuses it, or this CPU does not compute in `precision`, or also
            where the FP16 graph keeps FP32.
        BundleError: the graph was changed, has other tensors than the manifest says, or is none of INT8 or FP16.
    """
    precision = wanted.precision
    with wanted.seal_graph("openvino", graph_precision(precision)) as graph:
        compiled, work = _compile(graph, precision)
    session = OpenvinoSession(compiled, precision, wanted.bundle.spec, maps=wanted.maps)
    _prove(compiled, work, precision)
    return session


def _compile(graph: SealedFile, precision: str) -> tuple[Any, _Work]:
    """The compiled graph, and what each of its convolutions and matrix products should compute in."""
    config = {
        # Always said: left out, OpenVINO computes in bf16 by itself on CPUs that have it (logits off by 1 %).
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        # Keeps it from trading accuracy elsewhere; the precision hint above wins over it (tried: bf16 stays bf16).
        "EXECUTION_MODE_HINT": "ACCURACY",
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = ov.Core()
    try:
        model = _read(graph)
        work = _work(model, _WEIGHTS[precision])
        compiled = core.compile_model(model, "CPU", config)
    except Exception as error:  # its readers' exception classes share no other base
        raise BackendUnavailable(
            f"OpenVINO {ov.__version__} cannot compile the graph: {_reason(error)}; export again, "
            "or pip install --upgrade openvino"
        ) from error
    effective = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if effective != _HINTS[precision]:
        usable = next((ours for ours, theirs in _HINTS.items() if theirs == effective), "fp32")
        raise BackendUnavailable(
            f"OpenVINO has no {precision} arithmetic for {core.get_property('CPU', 'FULL_DEVICE_NAME').strip()}, and "
            f"would compute in {usable}; use precision {usable}"
        )
    return compiled, work


def _read(graph: SealedFile) -> Any:
    """The graph as an `openvino.Model`.

    Not by `Core.read_model`: from bytes it takes 45 ms more for 48 MB, and of a path without ".onnx" at its end it asks
    every format's reader whether it knows the file, which takes 30 ms.
    """
    reader = ov.frontend.FrontEndManager().load_by_framework("onnx")
    return reader.convert(reader.load(graph.path))


class OpenvinoSession:
    """One compiled graph with one inference request; threads may share it and take turns."""

    backend = "openvino"
    device = "cpu"

    def __init__(self, compiled: Any, precision: str, spec: ModelSpec, *, maps: bool = False) -> None:
        """`compiled` is an `openvino.CompiledModel`; its tensors must be those of `spec`, and with `maps` those too."""
        self.precision = precision
        more = [cam_spec(spec)] if maps else []
        names = {tensor.name for tensor in (spec.input, spec.output, *more)}
        check_tensors("the OpenVINO graph", _tensors(compiled, names), spec, *more)
        self._request: Any = compiled.create_infer_request()
        self._pixels: Any = None
        self._lock = threading.Lock()

    def run(self, batch: UInt8Array) -> Float32Array:
        """uint8 [N, H, W, 3], RGB -> logits float32 [N, K], owned by the caller."""
        return self._outputs(batch, 1)[0]

    def run_with_maps(self, batch: UInt8Array) -> tuple[Float32Array, Float32Array]:
        """uint8 [N, H, W, 3], RGB -> logits float32 [N, K] and maps float32 [N, K, h, w]."""
        logits, maps = self._outputs(batch, 2)
        return logits, maps

    def _outputs(self, batch: UInt8Array, count: int) -> list[Float32Array]:
        """The first `count` outputs."""
        try:
            with self._lock:
                # Not infer({0: batch}): what Python does around that call took 0.26 ms beside 2.5 ms of a small
                # network, whose weights had emptied the caches, and this 0.16 ms.  The batch is read where it lies;
                # the answer is copied out of the request's own memory, which the next run writes again.
                self._pixels = ov.Tensor(_writeable(batch), shared_memory=True)  # the request does not keep it alive
                self._request.set_input_tensor(self._pixels)
                self._request.infer()
                return [np.array(self._request.get_output_tensor(i).data, np.float32) for i in range(count)]
        except RuntimeError as error:
            raise BackendUnavailable(f"OpenVINO failed on a batch of {len(batch)}: {_reason(error)}") from error

    def close(self) -> None:
        """Drop the compiled graph."""
        self._request = self._pixels = None


def graph_precision(precision: str) -> str:
    """INT8 and FP16 have graphs of their own; BF16 is applied to the FP32 graph."""
    return _GRAPHS[precision]


def run_outputs(graph: bytes, device: str, precision: str, batch: UInt8Array) -> tuple[list[Any], str]:
    """Every output of a graph on the CPU, in its order, compiled as `load` compiles it: a `TensorBackend`.

    Raises:
        BackendUnavailable: OpenVINO refuses the graph, or this CPU does not compute in `precision`.
    """
    with SealedFile(graph) as sealed:
        compiled, _ = _compile(sealed, precision)
    try:
        answer = compiled.create_infer_request().infer({0: batch})
    except RuntimeError as error:
        raise BackendUnavailable(f"OpenVINO failed on a batch of {len(batch)}: {_reason(error)}") from error
    return [answer[index] for index in range(len(compiled.outputs))], "cpu"


def _writeable(batch: UInt8Array) -> UInt8Array:
    # OpenVINO does not write to it, and refuses it all the same.
    return batch if batch.flags.writeable else batch.copy()


def _tensors(compiled: Any, wanted: Set[str]) -> list[TensorSpec]:
    """Inputs, then outputs; of several names (OpenVINO leaves out an Add of zeros) the wanted one."""
    return [
        TensorSpec(
            next(iter(port.names & wanted), port.any_name),
            _TYPES.get(port.element_type.get_type_name(), port.element_type.get_type_name()),
            tuple("N" if axis.is_dynamic else axis.get_length() for axis in port.partial_shape),
        )
        for port in (*compiled.inputs, *compiled.outputs)
    ]


def _prove(compiled: Any, work: _Work, precision: str) -> None:
    """Compare what the work of an `openvino.CompiledModel` is really computed in with what it should be."""
    wanted = work.in_precision
    if not wanted:
        raise BundleError(f"the {precision} graph computes nothing in {precision}; make it again: samdeploy export")
    types = dict(_types_of_work(compiled))
    for name, followers in work.followers.items():
        found = [types[other] for other in followers if other in types]
        if found and name not in types:
            types[name] = found[0]
    narrowed = [name.partition("/")[0] for name in work.in_fp32 if types.get(name) == "f16"]
    if narrowed:
        raise BackendUnavailable(
            f"OpenVINO {ov.__version__} computes all layers in FP16, also those that FP16 cannot hold and the graph "
            f"keeps in FP32 ({', '.join(narrowed[:3])}); use precision bf16 or fp32"
        )
    done = sum(count for name, count in wanted.items() if types.get(name) in _COMPUTES_IN[precision])
    share = 100 * done / sum(wanted.values())
    if share < MIN_SHARE:
        wrong = (name for name in wanted if types.get(name) not in _COMPUTES_IN[precision])
        others = [f"{name} in {types.get(name, 'no type')}" for name in wrong]
        raise BackendUnavailable(
            f"OpenVINO {ov.__version__} computes only {share:.1f} % of the {precision} multiply-adds in that type "
            f"on this CPU, {MIN_SHARE:.0f} % expected ({', '.join(others[:3])}); use another precision"
        )


def _types_of_work(compiled: Any) -> Iterator[tuple[str, str]]:
    """Original name and element type of what the nodes in `_BECOME` of the network as it runs were made from."""
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = {key: node.rt_info[key].astype(str) for key in _RUNTIME_INFO if key in node.rt_info}
        if info.get("layerType") in _BECOME:
            # Several original nodes were fused into this one; which of them multiplies need not be known.
            for name in info.get("originalLayersNames", "").split(","):
                yield name, info.get("runtimePrecision", "")


@dataclass(frozen=True, slots=True)
class _Work:
    """Multiply-adds of a graph's convolutions and matrix products for one image, by name.

    Attributes:
        in_precision: that should compute in the precision that was asked for.
        in_fp32: that the graph keeps in FP32.
        followers: node -> the nodes that may be folded into it.
    """

    in_precision: dict[str, int]
    in_fp32: dict[str, int]
    followers: dict[str, list[str]]


def _work(model: Any, weight_type: str | None) -> _Work:
    """Those with weights of `weight_type` should compute in it; None: all, whatever their weights are."""
    found = _Work({}, {}, {})
    for node in model.get_ordered_ops():
        if node.get_type_name() in _COUNTED:
            is_in = weight_type is None or _weight_type(node) == weight_type
            part = found.in_precision if is_in else found.in_fp32
            part[node.get_friendly_name()] = _multiply_adds(node)
            found.followers[node.get_friendly_name()] = list(_followers(node))
    return found


def _multiply_adds(node: Any) -> int:
    """For one image; axes that the batch is part of count as 1."""
    output = list(node.get_output_partial_shape(0))
    if node.get_type_name() == "Convolution":
        factors = [*output[2:], *node.input_value(1).get_partial_shape()]
    else:
        inner = -2 if node.get_attributes()["transpose_a"] else -1
        factors = [*output, list(node.get_input_partial_shape(0))[inner]]
    return int(np.prod([1 if axis.is_dynamic else axis.get_length() for axis in factors], dtype=np.int64))


def _followers(node: Any) -> Iterator[str]:
    """Names of the `_FOLDED` nodes that follow one another, each the only reader of the one before but for shapes."""
    while True:
        readers = [port.get_node() for port in node.output(0).get_target_inputs()]
        readers = [reader for reader in readers if reader.get_type_name() != "ShapeOf"]
        if len(readers) != 1 or readers[0].get_type_name() not in _FOLDED:
            return
        node = readers[0]
        yield node.get_friendly_name()


def _weight_type(node: Any) -> str:
    """Element type of the constant that the weights come from, before nodes that turn it into float.

    For a product of two tensors of the image, the type of the product.
    """
    source = node.input_value(1).get_node()
    while source.get_input_size():
        source = source.input_value(0).get_node()
    maker = node if source.get_type_name() == "Parameter" else source
    return str(maker.get_output_element_type(0).get_type_name())


def _reason(error: Exception) -> str:
    """The last line that says something; OpenVINO puts its own source lines before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
