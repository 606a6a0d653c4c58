"""Reading an ONNX file that somebody else wrote, with the weights that lie beside it."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import onnx
import onnx.checker
import onnx.external_data_helper
import onnx.inliner
import onnx.numpy_helper
from google.protobuf.message import DecodeError

from samdeploy.errors import InputError, first_line
from samdeploy.graphs.edit import attribute, constants
from samdeploy.models.onnx_file.interface import OWN_DOMAINS, opset_of
from samdeploy.models.onnx_file.sizes import check_functions, check_sizes

# What one protobuf file can hold.
_MOST_BYTES = (2 << 30) - 1
_QUANTISED = ("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
# Opsets that are read.
OPSETS = range(11, 24)
_TOO_LARGE = "larger than 2 GiB, which is the most that one ONNX file can hold; such networks cannot be imported"


def read_onnx(path: Path) -> bytes:
    """The bytes of an ONNX file: as it is, or with its external weights taken in and its functions written out.

    Raises:
        InputError: it cannot be read or is no sound ONNX file; its weights lie elsewhere than beside it; it holds what
            a bundle's graph never does: other operators than ONNX's own, control flow, numbers that are not FP32.
    """
    try:
        content = path.read_bytes() if path.stat().st_size <= _MOST_BYTES else b""
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from None
    if not content:
        raise InputError(_TOO_LARGE if path.stat().st_size else "an empty file; an ONNX file expected")
    model = _parsed(content)
    if model.functions:
        check_functions(model)
        model = onnx.inliner.inline_local_functions(model)
        content = b""
    _check_operators(model)
    if external := [tensor for tensor in _tensors(model) if tensor.data_location == onnx.TensorProto.EXTERNAL]:
        _take_in(external, path.parent)
        content = b""
    content = content or model.SerializeToString(deterministic=True)
    _check_types(model)
    try:
        onnx.checker.check_model(content)
    except onnx.checker.ValidationError as error:
        raise InputError(f"ONNX's own checker refuses it ({first_line(error)})") from None
    return content


def given_model(content: bytes) -> onnx.ModelProto:
    """What `read_onnx` made, of a bundle that may have come from anywhere: nothing else is ever run.

    Raises:
        InputError: it holds what `read_onnx` refuses or takes in, or needs too much memory.
    """
    model = _parsed(content)
    if model.functions or any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model)):
        raise InputError("the ONNX file in these weights is not whole; import the network again: samdeploy import FILE")
    _check_operators(model)
    check_sizes(model)
    return model


def _parsed(content: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_from_string(content)
    except DecodeError:
        model = onnx.ModelProto()
    if not model.graph.node:
        raise InputError("not an ONNX file, or a truncated one; an ONNX file such as torch.onnx.export writes expected")
    return model


def _check_operators(model: onnx.ModelProto) -> None:
    if opset_of(model) not in OPSETS:
        raise InputError(
            f"is of opset {opset_of(model)}; {OPSETS[0]} to {OPSETS[-1]} are read. Export it again, for example with "
            "opset_version=18"
        )
    known = constants(model)
    known |= {node.output[0]: attribute(node, "value") for node in model.graph.node if node.op_type == "Constant"}
    moving = _of_images(model)
    for node in model.graph.node:
        where = f"{node.op_type} ({node.name})" if node.name else node.op_type
        if node.domain not in OWN_DOMAINS:
            raise InputError(
                f"uses {where} of {node.domain}, and not only ONNX's own operators; give the file as it was exported, "
                "before it was optimised for one runtime"
            )
        if node.op_type in _QUANTISED:
            raise InputError(
                f"is quantised already ({where}); give the FP32 file: samdeploy export --precision int8 quantises it"
            )
        if node.op_type in _RANDOM or _trains(node, known, moving):
            raise InputError(
                f"answers by chance or as in training ({where}); export the network in eval mode: model.eval()"
            )
        if any(value.HasField("g") or value.graphs for value in node.attribute):
            raise InputError(f"decides by what it sees ({where}), and control flow cannot be exported")
    if model.graph.sparse_initializer:
        raise InputError("holds sparse weights; dense ones expected")


def _of_images(model: onnx.ModelProto) -> set[str]:
    """The tensors that depend on the images."""
    moving = {value.name for value in model.graph.input} - set(constants(model))
    for node in model.graph.node:
        if not moving.isdisjoint(node.input):
            moving.update(node.output)
    return moving


def _trains(node: onnx.NodeProto, known: Mapping[str, onnx.TensorProto], moving: Collection[str]) -> bool:
    """Whether a Dropout drops, or a BatchNormalization takes the mean of the batch.

    Standardised weights, as in NFNets, are exported as a BatchNormalization of weights, which depends on no image.
    """
    if node.op_type == "BatchNormalization":
        return takes_mean(node) and any(name in moving for name in node.input)
    if node.op_type != "Dropout" or not any(node.input[2:]):
        return False
    flag = known.get(node.input[2])
    is_elsewhere = flag is None or flag.data_location == onnx.TensorProto.EXTERNAL
    return is_elsewhere or bool(onnx.numpy_helper.to_array(flag).any())


def takes_mean(node: onnx.NodeProto) -> bool:
    """Whether this is a BatchNormalization in training mode."""
    return node.op_type == "BatchNormalization" and (any(node.output[1:]) or bool(attribute(node, "training_mode", 0)))


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All constants: weights, and those in attributes."""
    yield from model.graph.initializer
    for node in model.graph.node:
        for value in node.attribute:
            if value.HasField("t"):
                yield value.t
            yield from value.tensors


def _take_in(tensors: list[onnx.TensorProto], folder: Path) -> None:
    """Read weights from files beside the ONNX file, and from nowhere else."""
    locations = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    total = 0
    for location in sorted(locations):
        # Taken apart by hand: Windows' separator is a letter for Linux, and part of no honest name.
        if location in ("", ".", "..") or "/" in location or "\\" in location or "\0" in location:
            raise InputError(f"its weights are in {location!r}; only a file beside it, named without a path, is read")
        try:
            found = os.lstat(folder / location)
        except OSError as error:
            raise InputError(
                f"its weights are in {location}, which cannot be read ({error.strerror}); put it beside the ONNX file"
            ) from None
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"its weights are in {location}, which is a link or no file; put the file itself there")
        total += found.st_size
    if total > _MOST_BYTES:
        raise InputError(_TOO_LARGE)
    for tensor in tensors:
        try:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise InputError(f"the weights {tensor.name} cannot be read ({first_line(error)})") from None
        tensor.data_location = onnx.TensorProto.DEFAULT  # onnx before 1.20 leaves this to its callers
        del tensor.external_data[:]


def _check_types(model: onnx.ModelProto) -> None:
    """Refuse numbers that are neither FP32 nor the integers of shapes; single ones in FP64 are exporters' own."""
    kinds = onnx.TensorProto
    casts = {attribute(node, "to") for node in model.graph.node if node.op_type == "Cast"}
    found = {tensor.data_type for tensor in _tensors(model)}
    if halves := (casts | found) & {kinds.FLOAT16, kinds.BFLOAT16}:
        raise InputError(
            f"computes in {kinds.DataType.Name(min(halves))}; give the FP32 file; samdeploy export writes FP16 itself"
        )
    known = {kinds.FLOAT, kinds.INT64, kinds.INT32, kinds.INT8, kinds.UINT8, kinds.BOOL}
    for tensor in _tensors(model):
        if tensor.data_type not in known and not (tensor.data_type == kinds.DOUBLE and not tensor.dims):
            raise InputError(f"holds numbers of type {kinds.DataType.Name(tensor.data_type)}; FP32 expected")
