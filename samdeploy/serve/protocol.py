"""The Open Inference Protocol (KServe v2) over HTTP: bytes to an `InferRequest`; the way back is in `answers.py`.

Written after the protocol's text and its two extensions, binary tensor data and classification.  Nothing here knows a
server; what is wrong with a request is a `RequestError` of status 400.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from samdeploy.arrays import UInt8Array
from samdeploy.bundle.spec import ModelSpec
from samdeploy.serve.errors import RequestError
from samdeploy.serve.infer_request import (
    CLASSES,
    WHOLE_NUMBERS,
    InferRequest,
    WantedOutput,
    byte_strings,
    check_outputs,
    image_count,
    pixels_of,
    pixels_of_numbers,
    shown,
    timeout_of,
    wanted_output,
)
from samdeploy.serve.json_body import read_json

# The header that says how long the JSON before binary tensors is, in requests and answers.
HEADER_LENGTH = "Inference-Header-Content-Length"


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
        raise RequestError(400, f"id: {shown(request_id)} found, a text expected")
    return InferRequest(request_id, images, tuple(outputs), timeout_of(parameters))


class _Binary:
    """The tensors behind the JSON, one after the other."""

    def __init__(self, content: memoryview) -> None:
        self._content, self._place = content, 0

    def take(self, size: object, name: str) -> bytes:
        left = len(self._content) - self._place
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= left:
            raise RequestError(
                400, f"{name}: binary_data_size {shown(size)} found, 0 to {left} expected (bytes after the JSON)"
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
            raise RequestError(400, f"{HEADER_LENGTH}: {shown(header_length)} found, a number of bytes expected")
        length = int(header_length)
        if length > len(body):
            raise RequestError(400, f"{HEADER_LENGTH}: {length} found, at most the body's {len(body)} expected")
    return read_json(body[:length]), memoryview(body)[length:]


def _images(given: Mapping[str, Any], binary: _Binary, spec: ModelSpec, most: int) -> UInt8Array | list[bytes]:
    name = spec.input.name
    if given.get("name") != name:
        raise RequestError(400, f"inputs[0].name: {shown(given.get('name'))} found, {name!r} expected")
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
        400, f"{name}.datatype: {shown(kind)} found, 'UINT8' (pixels) or 'BYTES' (encoded images) expected"
    )


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
        raise RequestError(400, f"{name}: no list of whole numbers found, {WHOLE_NUMBERS}")
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
        raise RequestError(400, f"{where}.parameters.binary_data: {shown(binary)} found, true or false expected")
    return wanted_output(given.get("name"), binary, parameters.get("classification", 0), where, spec)


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise RequestError(400, f"{where}: {shown(value)} found, an object expected")
    return value


def _list(parent: Mapping[str, Any], key: str) -> Sequence[Any]:
    value = parent.get(key)
    if not isinstance(value, list):
        raise RequestError(400, f"{key}: {shown(value)} found, a list expected")
    return value
