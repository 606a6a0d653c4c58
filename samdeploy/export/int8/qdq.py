"""Q/DQ nodes around the layers of an FP32 graph, placed by ONNX Runtime's static quantiser.

The quantiser is ONNX Runtime's (`onnxruntime.quantization`): export depends on that package anyway, it works on the
ONNX file itself and leaves its node names alone, and where it puts its Q/DQ pairs both CPU runtimes fuse every
convolution, gate product and sum into integer kernels.

Two forms are needed, because no pair of types suits all runtimes:

- ``cpu``: activations uint8 with a zero point.  ONNX Runtime has fast kernels for uint8 times int8 alone: it ran the
  int8 form of SAM-ResNet-50 at the speed of FP32, the uint8 form three to four times as fast.  After a ReLU the zero
  point is 0, so the ReLU is the lower end of the quantiser and its node goes away.
- ``tensorrt``: activations int8 with zero point 0, the only kind that TensorRT's parser accepts; ReLU nodes stay, and
  quantisation comes after them.

Weights are int8, symmetric, one scale per output channel, in both (Jacob et al. 2018, arXiv:1712.05877, equation 1
with zero point 0).  Biases stay float: TensorRT refuses int32 ones,
and the CPU runtimes turn them into int32 by themselves.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
import onnx.helper
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.quant_utils import save_and_reload_model_with_shape_infer

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.export.int8.units import find_units
from samdeploy.graphs.cost import multiply_adds
from samdeploy.graphs.edit import constants, serialize, with_outputs
from samdeploy.graphs.inference import open_inference, run_inference
from samdeploy.graphs.shapes import float_tensors

Form = Literal["cpu", "tensorrt"]

# Images per calibration run: every tensor of the network is held at once.
_BATCH = 4
_OPTIONS: dict[Form, dict[str, Any]] = {
    # Between quantised scores and weights of attention, ONNX Runtime 1.31 computes the softmax in 8 bits, far off.
    "cpu": {"ActivationSymmetric": False, "OpTypesToExcludeOutputQuantization": ["MatMul"]},
    # The next layer quantises what it reads, which is what comes out of the ReLU.
    "tensorrt": {
        "ActivationSymmetric": True,
        "OpTypesToExcludeOutputQuantization": ["Conv", "Gemm", "MatMul", "Add", "GlobalAveragePool"],
    },
}
_BOTH = ["Conv", "Gemm", "MatMul", "Mul", "Add", "Concat", "GlobalAveragePool", "MaxPool"]
_OPERATORS: dict[Form, list[str]] = {"cpu": [*_BOTH, "Relu", "Clip", "Sigmoid"], "tensorrt": _BOTH}
_ACTIVATIONS: dict[Form, QuantType] = {"cpu": QuantType.QUInt8, "tensorrt": QuantType.QInt8}


@dataclass(frozen=True, slots=True)
class Calibrated:
    """An FP32 graph with the extremes of every tensor, seen on training images.

    Attributes:
        graph: the FP32 ONNX file.
        inferred: the same with the shapes of all tensors, as the quantiser wants it.
        names: of the tensors that were watched.
        smallest, largest: float32 [images, tensors], of each tensor for each image.
        units: unit -> its nodes, see `samdeploy.export.int8.units`.
        multiply_adds: node -> multiply-adds for one image, of every convolution and matrix product.
    """

    graph: bytes
    inferred: bytes
    names: tuple[str, ...]
    smallest: Float32Array
    largest: Float32Array
    units: dict[str, tuple[str, ...]]
    multiply_adds: dict[str, int]

    def share(self, kept: Collection[str]) -> float:
        """Percent of the multiply-adds that int8 computes where the units `kept` stay in FP32."""
        quantised = (node for unit, nodes in self.units.items() if unit not in kept for node in nodes)
        return 100 * sum(self.multiply_adds.get(node, 0) for node in quantised) / sum(self.multiply_adds.values())

    def ranges(self, coverage: float) -> Any:
        """The quantiser's `TensorsData`: per tensor, the extremes of at least `coverage` percent of the images.

        Attention without squashing grows with the square of its input, so that single images can give values a
        million times larger than all others; a range that holds them has no step left for the rest.
        """
        low = np.quantile(self.smallest, 1 - coverage / 100, axis=0, method="lower")
        high = np.quantile(self.largest, coverage / 100, axis=0, method="higher")
        pairs = {name: (np.float32(low[i]), np.float32(high[i])) for i, name in enumerate(self.names)}
        return TensorsData(CalibrationMethod.MinMax, pairs)


def calibrate(graph: bytes, images: UInt8Array) -> Calibrated:
    """Find the smallest and largest value of every tensor for every image.

    Args:
        graph: FP32 ONNX file.
        images: uint8 [n, H, W, 3], RGB, of the training split.
    """
    model = onnx.load_from_string(graph)
    names = tuple(float_tensors(model))
    session = open_inference(serialize(with_outputs(model, names)))
    smallest, largest = (np.empty((len(images), len(names)), np.float32) for _ in range(2))
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        rows = slice(start, start + len(batch))
        for column, value in enumerate(run_inference(session, {model.graph.input[0].name: batch})):
            # What does not depend on the image counts for each.
            flat = value.reshape(len(batch) if value.size % len(batch) == 0 else 1, -1)
            smallest[rows, column], largest[rows, column] = flat.min(axis=1), flat.max(axis=1)
    # The quantiser would do it each time, by way of files.
    inferred = serialize(save_and_reload_model_with_shape_infer(model))
    return Calibrated(graph, inferred, names, smallest, largest, find_units(model), multiply_adds(model))


def quantize(calibrated: Calibrated, form: Form, kept: Collection[str] = (), coverage: float = 100) -> bytes:
    """The graph with Q/DQ pairs around every unit but those in `kept`, which compute in FP32.

    `coverage` is explained in `Calibrated.ranges`; what lies outside its range is clipped.
    Pixels and head stay in FP32 always: the head is small, and its input carries what the classes differ by.
    """
    nodes = [node for unit, names in calibrated.units.items() if unit not in kept for node in names]
    if not nodes:  # the quantiser takes an empty list for all nodes
        return calibrated.graph
    model = onnx.load_from_string(calibrated.inferred)
    producer = model.producer_name, model.producer_version
    quantizer = QDQQuantizer(
        model,
        True,  # one scale per output channel
        False,  # all 8 bits of the weights
        QuantType.QInt8,
        _ACTIVATIONS[form],
        calibrated.ranges(coverage),
        nodes,
        [],
        _OPERATORS[form],
        {"WeightSymmetric": True, "QuantizeBias": False, **_OPTIONS[form]},
    )
    with _quiet():
        quantizer.quantize_model()
    # It appends its nodes at the end; the specification wants every tensor made before it is read.
    quantizer.model.topological_sort()
    model = quantizer.model.model
    _unshare(model)
    model.producer_name, model.producer_version = producer
    return bytes(model.SerializeToString(deterministic=True))


def _unshare(model: onnx.ModelProto) -> None:
    """Give each reader of a quantised constant a DequantizeLinear node and a constant of its own.

    With the option x64quantprecision, ONNX Runtime 1.31 turns int8 constants into uint8 ones, once for each reader and
    each time under the same name, and then refuses the graph.
    """
    weights = constants(model)
    readers = Counter(name for node in model.graph.node for name in set(node.input))
    made = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in weights]
    shared = {node.output[0]: node for node in made if readers[node.output[0]] > 1}
    nodes: list[onnx.NodeProto] = []
    seen: Counter[str] = Counter()
    for node in model.graph.node:
        for name in set(node.input) & shared.keys():
            seen[name] += 1
            if seen[name] > 1:
                copied = _copy(shared[name], f".{seen[name]}")
                for old, new in zip(shared[name].input, copied.input, strict=True):
                    model.graph.initializer.add().CopyFrom(weights[old])
                    model.graph.initializer[-1].name = new
                nodes.append(copied)
                node.input[:] = [copied.output[0] if read == name else read for read in node.input]
        nodes.append(node)
    if shared:
        del model.graph.node[:]
        model.graph.node.extend(nodes)


def _copy(node: onnx.NodeProto, suffix: str) -> onnx.NodeProto:
    """A copy of a node whose name and tensors end with `suffix`."""
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    copied.name += suffix
    copied.input[:] = [name + suffix for name in node.input]
    copied.output[:] = [name + suffix for name in node.output]
    return copied


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser reports through the root logger and prints; what matters here is measured afterwards."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
