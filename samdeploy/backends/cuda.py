"""The CUDA side of TensorRT: devices, streams and buffers.  Importable without a GPU and without cuda-python.

Nothing here makes a context: the driver's primary context of device 0 is used, the one that torch, CuPy and others
share.  Another card is chosen with `CUDA_VISIBLE_DEVICES`.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samdeploy.errors import BackendUnavailable

# CUdevice_attribute in cuda.h
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


def cuda_devices() -> tuple[int, str | None]:
    """Number of CUDA devices, and where it is 0 the reason.

    Asks the driver alone.  Ask this before any TensorRT object is made: without a device `tensorrt.Runtime`
    returns an object that kills the process on first use.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return 0, f"the NVIDIA driver is not installed ({error})"
    status = driver.cuInit(0)
    if status != 0:
        return 0, f"the NVIDIA driver does not start: cuInit returned {status} ({_driver_error(driver, status)})"
    count = ctypes.c_int()
    status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0:
        return 0, f"cuDeviceGetCount returned {status} ({_driver_error(driver, status)})"
    return count.value, None if count.value else "the NVIDIA driver is installed but shows no device"


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU: its name, its compute capability as TensorRT writes it ("SM86"), the driver's CUDA version ("13.0")."""

    name: str
    capability: str
    driver: str


def describe_device() -> Device:
    """Device 0.

    Raises:
        BackendUnavailable: there is none.
    """
    count, why = cuda_devices()
    if not count:
        raise BackendUnavailable(f"no CUDA device: {why}")
    driver = ctypes.CDLL("libcuda.so.1")
    name = ctypes.create_string_buffer(256)
    device, major, minor, version = (ctypes.c_int() for _ in range(4))
    for status in (
        driver.cuDeviceGet(ctypes.byref(device), 0),
        driver.cuDeviceGetName(name, len(name), device),
        driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device),
        driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device),
        driver.cuDriverGetVersion(ctypes.byref(version)),
    ):
        if status != 0:
            raise BackendUnavailable(f"CUDA device 0 cannot be described: {_driver_error(driver, status)}")
    return Device(
        name=name.value.decode(errors="replace"),
        capability=f"SM{major.value}{minor.value}",
        driver=f"{version.value // 1000}.{version.value % 1000 // 10}",
    )


def _driver_error(driver: Any, status: int) -> str:
    name = ctypes.c_char_p()
    driver.cuGetErrorName(status, ctypes.byref(name))
    return name.value.decode() if name.value else f"CUDA error {status}"


def runtime() -> Any:
    """The module `cuda.bindings.runtime`.

    Raises:
        BackendUnavailable: cuda-python is not installed.
    """
    try:
        from cuda.bindings import runtime as module
    except ImportError as error:
        raise BackendUnavailable(
            f"cuda-python cannot be imported ({error}); pip install 'cuda-python>=12.9'"
        ) from error
    return module


def call(name: str, *arguments: Any) -> Any:
    """Call a function of the CUDA runtime; gives its result, or None where it has none.

    Raises:
        BackendUnavailable: with CUDA's own name of the error.
    """
    status, *results = getattr(runtime(), name)(*arguments)
    if int(status) != 0:
        hint = "; use a smaller batch" if status.name == "cudaErrorMemoryAllocation" else ""
        raise BackendUnavailable(f"{name} failed: {status.name} ({int(status)}){hint}")
    return results[0] if results else None


class Stream:
    """A stream of its own, which does not wait for the default stream."""

    def __init__(self) -> None:
        self._stream = call("cudaStreamCreateWithFlags", runtime().cudaStreamNonBlocking)

    @property
    def handle(self) -> int:
        """The address that TensorRT takes."""
        return int(self._stream)

    def synchronize(self) -> None:
        """Wait until everything on the stream is done; errors of its kernels come out here."""
        call("cudaStreamSynchronize", self._stream)

    def close(self) -> None:
        call("cudaStreamDestroy", self._stream)


class Buffer:
    """Device memory with page-locked host memory of the same size: copies between them run at full speed.

    Attributes:
        device: address on the device.
        host: uint8 [nbytes]; belongs to this buffer, so copy out of it before `close`.
    """

    def __init__(self, nbytes: int) -> None:
        self.device = int(call("cudaMalloc", nbytes))
        try:
            self._pinned = int(call("cudaHostAlloc", nbytes, runtime().cudaHostAllocDefault))
        except BackendUnavailable:
            call("cudaFree", self.device)
            raise
        self.host: NDArray[np.uint8] = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(self._pinned))

    def upload(self, nbytes: int, stream: Stream) -> None:
        """Queue a copy of the first `nbytes` from host to device."""
        kind = runtime().cudaMemcpyKind.cudaMemcpyHostToDevice
        call("cudaMemcpyAsync", self.device, self._pinned, nbytes, kind, stream.handle)

    def download(self, nbytes: int, stream: Stream) -> None:
        """Queue a copy of the first `nbytes` from device to host; valid after `stream.synchronize()`."""
        kind = runtime().cudaMemcpyKind.cudaMemcpyDeviceToHost
        call("cudaMemcpyAsync", self._pinned, self.device, nbytes, kind, stream.handle)

    def close(self) -> None:
        self.host = np.empty(0, np.uint8)
        call("cudaFree", self.device)
        call("cudaFreeHost", self._pinned)
