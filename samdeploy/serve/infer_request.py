"""A request of the Open Inference Protocol, and its parts as HTTP and gRPC both check them.

Errors are a `RequestError` of status 400, or 413 for too many images.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from samdeploy.arrays import UInt8Array
from samdeploy.bundle.spec import ModelSpec
from samdeploy.serve.errors import RequestError, TooManyImages

CLASSES = "classes"
WHOLE_NUMBERS = "whole numbers from 0 to 255 expected"
# Outputs that a request names, at most: the same ones may come as tensors and as classes.
_MOST_OUTPUTS = 10
_PIECE = 1 << 16  # elements after which other threads get their turn
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


def timeout_of(parameters: Mapping[str, Any]) -> float | None:
    """Seconds of the parameter `timeout`, which is in microseconds, as Triton has it.

    Raises:
        RequestError: it is no whole number above 0.
    """
    timeout = parameters.get("timeout")
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 1:
        raise RequestError(400, f"parameters.timeout: {shown(timeout)} found, microseconds above 0 expected")
    return min(timeout, 10**12) / 1e6


def check_outputs(count: int) -> None:
    """
    Raises:
        RequestError: a request names too many outputs.
    """
    if count > _MOST_OUTPUTS:
        raise RequestError(400, f"outputs: {count} found, at most {_MOST_OUTPUTS} expected")


def wanted_output(name: object, binary: bool, count: object, where: str, spec: ModelSpec) -> WantedOutput:
    """An output of the network, by its name.

    Raises:
        RequestError: there is none, or more classes are asked for than there are.
    """
    if name not in (spec.output.name, CLASSES):
        raise RequestError(400, f"{where}.name: {shown(name)} found, {spec.output.name!r} or {CLASSES!r} expected")
    most = len(spec.classes) if name == spec.output.name else 0
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= most:
        raise RequestError(400, f"{where}.parameters.classification: {shown(count)} found, 0 to {most} expected")
    return WantedOutput(str(name), binary, count)


def image_count(found: Sequence[Any], name: str, most: int) -> int:
    """How many encoded images a tensor of this shape holds.

    Raises:
        RequestError: it is not [N], or N is above `most`.
    """
    if len(found) != 1 or isinstance(found[0], bool) or not isinstance(found[0], int) or found[0] < 1:
        raise RequestError(400, f"{name}: shape {shown(found)} found, [N] of N encoded images expected")
    if found[0] > most:
        raise TooManyImages(shown(found[0]), most)
    return found[0]


def pixels_of(content: bytes, shape: Sequence[Any], spec: ModelSpec, most: int) -> UInt8Array:
    """uint8 [N, H, W, 3] of raw bytes.

    Raises:
        RequestError: another shape or length.
    """
    count = _tensor_shape(shape, spec, most)
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
    needed = _tensor_shape(shape, spec, most) * size.height * size.width * 3
    if len(numbers) != needed:
        raise RequestError(400, f"{name}: {len(numbers)} numbers found, {needed} {WHOLE_NUMBERS}")
    try:
        pixels = b"".join(_bytes(numbers[start : start + _PIECE]) for start in range(0, needed, _PIECE))
    except (TypeError, ValueError) as error:
        # Python's ValueError is of the range, also for numbers of any length.
        found = "no list of whole numbers" if isinstance(error, TypeError) else "numbers out of range"
        raise RequestError(400, f"{name}: {found} found, {needed} {WHOLE_NUMBERS}") from None
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


def shown(value: object) -> str:
    """A value of a request, cut to 60 characters for a message."""
    text = _SHORT.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _tensor_shape(found: Sequence[Any], spec: ModelSpec, most: int) -> int:
    """How many images a tensor of this shape holds.

    Raises:
        RequestError: it is not [N, H, W, 3] of this network, or N is above `most`.
    """
    size = spec.preprocessing
    expected = [size.height, size.width, 3]
    if list(found[1:5]) != expected or any(isinstance(side, bool) or not isinstance(side, int) for side in found):
        raise RequestError(
            400, f"{spec.input.name}: shape {shown(found)} found, [N, {expected[0]}, {expected[1]}, 3] expected"
        )
    if found[0] < 1:
        raise RequestError(400, f"{spec.input.name}: shape {shown(found)} found, at least 1 image expected")
    if found[0] > most:
        raise TooManyImages(shown(found[0]), most)
    return int(found[0])


def _bytes(numbers: Sequence[Any]) -> bytes:
    if bool in set(map(type, numbers)):
        raise TypeError
    return bytes(numbers)
