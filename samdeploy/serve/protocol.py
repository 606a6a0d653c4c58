"""The Open Inference Protocol (KServe v2) over HTTP: bytes to an `InferRequest`; the way back is in `answers.py`.

Written after the protocol's text and its two extensions, binary tensor data and classification.  Nothing here knows a
server; what is wrong with a request is a `RequestError` of status 400.
"""

from __future__ import annotations

import base64
import binascii
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from samdeploy.arrays import UInt8Array
from samdeploy.bundle import Bundle
from samdeploy.bundle.spec import ModelSpec
from samdeploy.serve.errors import RequestError, TooManyImages
from samdeploy.serve.json_body import read_json

CLASSES = "classes"
# The header that says how long the JSON before binary tensors is, in requests and answers.
HEADER_LENGTH = "Inference-Header-Content-Length"
EXTENSIONS = ("binary_tensor_data", "classification")
# Outputs that a request names, at most: the same ones may come as tensors and as classes.
_MOST_OUTPUTS = 10
_PIECE = 1 << 16  # elements after which other threads get their turn
_EXPECTED = "whole numbers from 0 to 255 expected"
_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxdict = 20
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


@dataclass(frozen=True, slots=True)
class WantedOutput:
    """An output that a request names.

    Attributes:
        name: the logits' or "classes".
        binary: behind the JSON instead of in it.
        classification: the best so many of each image as "value:index:label"; 0: the tensor itself.
    """

    name: str
    binary: bool = False
    classification: int = 0


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What is asked of a model.

    Attributes:
        images: uint8 [N, H, W, 3], or N encoded images.
        outputs: in the order of the answer.
        timeout: seconds that it may wait, where it says so.
    """

    id: str
    images: UInt8Array | list[bytes]
    outputs: tuple[WantedOutput, ...]
    timeout: float | None = None


def model_metadata(name: str, versions: Sequence[str], bundle: Bundle) -> dict[str, Any]:
    """The answer to GET v2/models/NAME, which tells clients of tensors; -1 is any number of images."""
    spec = bundle.spec
    height, width = spec.preprocessing.height, spec.preprocessing.width
    return {
        "name": name,
        "versions": list(versions),
        "platform": "samdeploy",
        "inputs": [{"name": spec.input.name, "datatype": "UINT8", "shape": [-1, height, width, 3]}],
        "outputs": [
            {"name": spec.output.name, "datatype": "FP32", "shape": [-1, len(spec.classes)]},
            {"name": CLASSES, "datatype": "BYTES", "shape": [-1]},
        ],
    }


def model_config(name: str, bundle: Bundle, batch: int, precision: str) -> dict[str, Any]:
    """The answer to GET v2/models/NAME/config, Triton's extension, for perf_analyzer and `bench --url`."""
    spec = bundle.spec
    height, width = spec.preprocessing.height, spec.preprocessing.width
    return {
        "name": name,
        "platform": "samdeploy",
        "max_batch_size": batch,
        "input": [{"name": spec.input.name, "data_type": "TYPE_UINT8", "dims": [height, width, 3]}],
        "output": [
            {"name": spec.output.name, "data_type": "TYPE_FP32", "dims": [len(spec.classes)]},
            {"name": CLASSES, "data_type": "TYPE_STRING", "dims": []},
        ],
        "parameters": {"precision": {"string_value": precision}},
    }


def read_infer(body: bytes, header_length: str | None, spec: ModelSpec, most: int) -> InferRequest:
    """A request's body, JSON alone or JSON and binary tensors behind it, with at most so many images.

    Raises:
        RequestError: not a request of the protocol, or not one for this network.
    """
    content, rest = _split(body, header_length)
    request = _object(content, "the request")
    parameters = _object(request.get("parameters", {}), "parameters")
    binary_tensors = _Binary(rest)
    inputs = _list(request, "inputs")
    if len(inputs) != 1:
        raise RequestError(400, f"inputs: {len(inputs)} found, 1 expected, named {spec.input.name!r}")
    images = _images(_object(inputs[0], "inputs[0]"), binary_tensors, spec, most)
    binary_tensors.check_end()
    as_binary = parameters.get("binary_data_output", False) is True
    named = _list(request, "outputs") if "outputs" in request else []
    check_outputs(len(named))
    outputs = [
        _wanted(_object(one, f"outputs[{place}]"), f"outputs[{place}]", as_binary, spec)
        for place, one in enumerate(named)
    ] or [WantedOutput(spec.output.name, as_binary), WantedOutput(CLASSES, as_binary)]
    request_id = request.get("id", "")
    if not isinstance(request_id, str):
        raise RequestError(400, f"id: {_shown(request_id)} found, a text expected")
    return InferRequest(request_id, images, tuple(outputs), timeout_of(parameters))


def timeout_of(parameters: Mapping[str, Any]) -> float | None:
    """Seconds of the parameter `timeout`, which is in microseconds, as Triton has it.

    Raises:
        RequestError: it is no whole number above 0.
    """
    timeout = parameters.get("timeout")
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 1:
        raise RequestError(400, f"parameters.timeout: {_shown(timeout)} found, microseconds above 0 expected")
    return min(timeout, 10**12) / 1e6


def check_outputs(count: int) -> None:
    """
    Raises:
        RequestError: a request names too many outputs.
    """
    if count > _MOST_OUTPUTS:
        raise RequestError(400, f"outputs: {count} found, at most {_MOST_OUTPUTS} expected")


def tensor_shape(found: Sequence[Any], spec: ModelSpec, most: int) -> int:
    """How many images a tensor of this shape holds.

    Raises:
        RequestError: it is not [N, H, W, 3] of this network, or N is above `most`.
    """
    size = spec.preprocessing
    expected = [size.height, size.width, 3]
    if list(found[1:5]) != expected or any(isinstance(side, bool) or not isinstance(side, int) for side in found):
        raise RequestError(
            400, f"{spec.input.name}: shape {_shown(found)} found, [N, {expected[0]}, {expected[1]}, 3] expected"
        )
    if found[0] < 1:
        raise RequestError(400, f"{spec.input.name}: shape {_shown(found)} found, at least 1 image expected")
    if found[0] > most:
        raise TooManyImages(found[0], most)
    return int(found[0])


def image_count(found: Sequence[Any], name: str, most: int) -> int:
    """How many encoded images a tensor of this shape holds.

    Raises:
        RequestError: it is not [N], or N is above `most`.
    """
    if len(found) != 1 or isinstance(found[0], bool) or not isinstance(found[0], int) or found[0] < 1:
        raise RequestError(400, f"{name}: shape {_shown(found)} found, [N] of N encoded images expected")
    if found[0] > most:
        raise TooManyImages(found[0], most)
    return found[0]


def pixels_of(content: bytes, shape: Sequence[Any], spec: ModelSpec, most: int) -> UInt8Array:
    """uint8 [N, H, W, 3] of raw bytes.

    Raises:
        RequestError: another shape or length.
    """
    count = tensor_shape(shape, spec, most)
    size = spec.preprocessing
    needed = count * size.height * size.width * 3
    if len(content) != needed:
        raise RequestError(400, f"{spec.input.name}: {len(content)} bytes found, {needed} expected by its shape")
    return np.frombuffer(content, np.uint8).reshape(count, size.height, size.width, 3)


def pixels_of_numbers(numbers: Sequence[Any], shape: Sequence[Any], spec: ModelSpec, most: int) -> UInt8Array:
    """uint8 [N, H, W, 3] of as many numbers.

    Raises:
        RequestError: another shape or length, or something else than whole numbers from 0 to 255.
    """
    name, size = spec.input.name, spec.preprocessing
    needed = tensor_shape(shape, spec, most) * size.height * size.width * 3
    if len(numbers) != needed:
        raise RequestError(400, f"{name}: {len(numbers)} numbers found, {needed} {_EXPECTED}")
    try:
        pixels = b"".join(_bytes(numbers[start : start + _PIECE]) for start in range(0, needed, _PIECE))
    except (TypeError, ValueError) as error:
        # Python's ValueError is of the range, also for numbers of any length.
        found = "no list of whole numbers" if isinstance(error, TypeError) else "numbers out of range"
        raise RequestError(400, f"{name}: {found} found, {needed} {_EXPECTED}") from None
    return pixels_of(pixels, shape, spec, most)


def byte_strings(content: bytes, count: int, name: str) -> list[bytes]:
    """The elements of a binary BYTES tensor: each after its length, 4 bytes, the lowest first.

    Raises:
        RequestError: they are not `count`, or one goes past the end.
    """
    found: list[bytes] = []
    place = 0
    while place + 4 <= len(content) and len(found) < count:
        start = place + 4
        place = start + int.from_bytes(content[place:start], "little")
        found.append(content[start:place])
    if place != len(content) or len(found) != count:
        raise RequestError(400, f"{name}: {len(content)} bytes found that are not {count} elements with their lengths")
    return found


class _Binary:
    """The tensors behind the JSON, one after the other."""

    def __init__(self, content: memoryview) -> None:
        self._content, self._place = content, 0

    def take(self, size: object, name: str) -> bytes:
        left = len(self._content) - self._place
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= left:
            raise RequestError(
                400, f"{name}: binary_data_size {_shown(size)} found, 0 to {left} expected (bytes after the JSON)"
            )
        self._place += size
        return bytes(self._content[self._place - size : self._place])

    def check_end(self) -> None:
        if self._place != len(self._content):
            raise RequestError(400, f"{len(self._content) - self._place} bytes found behind the tensors, none expected")


def _split(body: bytes, header_length: str | None) -> tuple[Any, memoryview]:
    """The JSON value at the front, and what is behind it."""
    length = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdecimal() and len(header_length) < 12):
            raise RequestError(400, f"{HEADER_LENGTH}: {_shown(header_length)} found, a number of bytes expected")
        length = int(header_length)
        if length > len(body):
            raise RequestError(400, f"{HEADER_LENGTH}: {length} found, at most the body's {len(body)} expected")
    return read_json(body[:length]), memoryview(body)[length:]


def _images(given: Mapping[str, Any], binary: _Binary, spec: ModelSpec, most: int) -> UInt8Array | list[bytes]:
    name = spec.input.name
    if given.get("name") != name:
        raise RequestError(400, f"inputs[0].name: {_shown(given.get('name'))} found, {name!r} expected")
    shape = _list(given, "shape")
    kind = given.get("datatype")
    parameters = _object(given.get("parameters", {}), f"{name}.parameters")
    is_binary = "binary_data_size" in parameters
    if is_binary == ("data" in given):
        raise RequestError(400, f"{name}: either data or parameters.binary_data_size expected")
    if kind == "UINT8":
        if is_binary:
            return pixels_of(binary.take(parameters["binary_data_size"], name), shape, spec, most)
        return pixels_of_numbers(_flat(given["data"], name), shape, spec, most)
    if kind == "BYTES":
        count = image_count(shape, name, most)
        if is_binary:
            return byte_strings(binary.take(parameters["binary_data_size"], name), count, name)
        return _json_bytes(given["data"], count, name)
    raise RequestError(
        400, f"{name}.datatype: {_shown(kind)} found, 'UINT8' (pixels) or 'BYTES' (encoded images) expected"
    )


def _bytes(numbers: Sequence[Any]) -> bytes:
    if bool in set(map(type, numbers)):
        raise TypeError
    return bytes(numbers)


def _flat(data: object, name: str) -> list[Any]:
    """The elements of nested lists.  Not by numpy, where one long text makes every element as long.

    Raises:
        RequestError: no list, or a ragged one.
    """
    try:
        while isinstance(data, list) and data and isinstance(data[0], list):
            data = list(chain.from_iterable(data)) if len({len(one) for one in data}) == 1 else None
    except TypeError:  # a list beside numbers
        data = None
    if not isinstance(data, list):
        raise RequestError(400, f"{name}: no list of whole numbers found, {_EXPECTED}")
    return data


def _json_bytes(data: object, count: int, name: str) -> list[bytes]:
    if not isinstance(data, list) or len(data) != count or not all(isinstance(one, str) for one in data):
        raise RequestError(400, f"{name}: {count} encoded images expected, each as base64")
    try:
        return [base64.b64decode(one, validate=True) for one in data]
    except (binascii.Error, ValueError):
        raise RequestError(400, f"{name}: not base64; in JSON an encoded image is base64") from None


def _wanted(given: Mapping[str, Any], where: str, as_binary: bool, spec: ModelSpec) -> WantedOutput:
    parameters = _object(given.get("parameters", {}), f"{where}.parameters")
    binary = parameters.get("binary_data", as_binary)
    if not isinstance(binary, bool):
        raise RequestError(400, f"{where}.parameters.binary_data: {_shown(binary)} found, true or false expected")
    return wanted_output(given.get("name"), binary, parameters.get("classification", 0), where, spec)


def wanted_output(name: object, binary: bool, count: object, where: str, spec: ModelSpec) -> WantedOutput:
    """An output of the network, by its name.

    Raises:
        RequestError: there is none, or more classes are asked for than there are.
    """
    if name not in (spec.output.name, CLASSES):
        raise RequestError(400, f"{where}.name: {_shown(name)} found, {spec.output.name!r} or {CLASSES!r} expected")
    most = len(spec.classes) if name == spec.output.name else 0
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= most:
        raise RequestError(400, f"{where}.parameters.classification: {_shown(count)} found, at most {most} expected")
    return WantedOutput(str(name), binary, count)


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise RequestError(400, f"{where}: {_shown(value)} found, an object expected")
    return value


def _list(parent: Mapping[str, Any], key: str) -> Sequence[Any]:
    value = parent.get(key)
    if not isinstance(value, list):
        raise RequestError(400, f"{key}: {_shown(value)} found, a list expected")
    return value


def _shown(value: object) -> str:
    text = _SHORT.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
