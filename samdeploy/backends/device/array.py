"""Arrays in device memory that belong to someone else: PyCUDA, CuPy, PyTorch, Numba and others.

They are taken through `__cuda_array_interface__`, versions 2 and 3
(https://nvidia.github.io/numba-cuda/user/cuda_array_interface.html); nothing of those packages is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from samdeploy.backends.device.cuda import call, runtime
from samdeploy.backends.device.objects import LEGACY_DEFAULT_STREAM
from samdeploy.errors import BackendUnavailable, InputError


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """A C-contiguous array in device memory.

    Attributes:
        address: of its first element.
        shape: its lengths.
        stream: the stream on which its owner may still be writing; None where there is nothing to wait for.
    """

    address: int
    shape: tuple[int, ...]
    stream: int | None


def device_array(
    name: str, array: object, dtype: str, tail: tuple[int, ...], *, writeable: bool = False
) -> DeviceArray:
    """Read and check an array's `__cuda_array_interface__`.

    Args:
        name: what to call it in errors.
        array: from PyCUDA, CuPy, PyTorch, Numba or another package with this interface.
        dtype: "uint8" or "float32".
        tail: lengths of all axes but the first, which must be at least 1.

    Raises:
        InputError: host memory, another dtype or shape, not contiguous, read-only, or a damaged interface.
    """
    wanted = f"{dtype} [N, {', '.join(map(str, tail))}], C-contiguous, in device memory, with N >= 1"
    interface = getattr(array, "__cuda_array_interface__", None)
    if not isinstance(interface, dict):
        kind = type(array).__name__
        hint = "; host arrays go to run()" if isinstance(array, np.ndarray) else ""
        raise InputError(f"{name}: {kind} without __cuda_array_interface__ found; expected {wanted}{hint}")
    try:
        version = int(interface["version"])
        shape = tuple(int(length) for length in interface["shape"])
        found = np.dtype(interface["typestr"])
        address, read_only = int(interface["data"][0]), bool(interface["data"][1])
        strides, mask = interface.get("strides"), interface.get("mask")
        stream = _stream_of_interface(name, interface.get("stream"))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{name}: its __cuda_array_interface__ is damaged ({type(error).__name__}: {error})") from None
    if version < 2:
        raise InputError(f"{name}: __cuda_array_interface__ version {version} found, 2 or 3 expected")
    if found != np.dtype(dtype) or len(shape) != 1 + len(tail) or shape[1:] != tail or shape[0] < 1:
        raise InputError(f"{name}: {found} {list(shape)} found, {wanted} expected")
    if strides is not None and not _is_contiguous(shape, tuple(strides), found.itemsize):
        raise InputError(f"{name}: strides {tuple(strides)} found, {wanted} expected; make a contiguous copy first")
    if mask is not None:
        raise InputError(f"{name}: a masked array found, {wanted} expected")
    if writeable and read_only:
        raise InputError(f"{name}: a read-only array found; the logits are written to it")
    if address == 0:
        raise InputError(f"{name}: address 0 found, {wanted} expected")
    return DeviceArray(address, shape, stream)


def check_on_device(name: str, array: DeviceArray) -> None:
    """Ask CUDA whether the array's address lies in memory of device 0.

    Raises:
        InputError: it lies in host memory, on another device, or nowhere.
    """
    try:
        attributes = call("cudaPointerGetAttributes", array.address)
    except BackendUnavailable as error:
        raise InputError(f"{name}: CUDA does not know the address {array.address:#x} ({error})") from None
    kinds = runtime().cudaMemoryType
    if attributes.type not in (kinds.cudaMemoryTypeDevice, kinds.cudaMemoryTypeManaged):
        raise InputError(f"{name}: the address {array.address:#x} is not in device memory; copy it to the GPU first")
    if attributes.type == kinds.cudaMemoryTypeDevice and attributes.device != 0:
        raise InputError(
            f"{name}: it lies on device {attributes.device}, this session runs on device 0; "
            "choose the card with CUDA_VISIBLE_DEVICES"
        )


def stream_handle(stream: object) -> int:
    """The handle of a stream: an int, or an object of PyTorch, CuPy, PyCUDA, Numba or cuda-python.

    Raises:
        InputError: none of these.
    """
    handle: Any = stream
    protocol = getattr(stream, "__cuda_stream__", None)
    if callable(protocol):
        handle = protocol()[1]
    else:
        for attribute in ("cuda_stream", "ptr", "handle"):  # PyTorch; CuPy; PyCUDA, Numba
            if hasattr(stream, attribute):
                handle = getattr(stream, attribute)
                break
    handle = getattr(handle, "value", handle)  # Numba's is a ctypes pointer
    if handle is None and handle is not stream:
        handle = 0
    try:
        number = int(handle)
    except (TypeError, ValueError):
        number = -1
    if number < 0 or isinstance(stream, bool):
        raise InputError(
            f"stream: {type(stream).__name__} found; an int, or a stream of PyTorch, CuPy, PyCUDA, Numba or "
            "cuda-python expected"
        )
    return number or LEGACY_DEFAULT_STREAM


def _stream_of_interface(name: str, stream: Any) -> int | None:
    if stream is None:
        return None
    if int(stream) == 0:  # the standard forbids it, since it could mean three things
        raise InputError(f"{name}: stream 0 found in its __cuda_array_interface__; None, 1, 2 or a handle expected")
    return int(stream)


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    """Row-major without gaps; the stride of an axis of length 1 does not matter."""
    if len(strides) != len(shape):
        return False
    step = itemsize
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and stride != step:
            return False
        step *= length
    return True
