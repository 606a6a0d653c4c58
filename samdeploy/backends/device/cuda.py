"""CUDA itself: is there a device, and how its functions are called.  Importable without a GPU and without cuda-python.

Nothing here makes a context: the driver's primary context of device 0 is used, the one that torch, CuPy and others
share.  Another card is chosen with `CUDA_VISIBLE_DEVICES`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from samdeploy.errors import SMALLER_BATCH, BackendUnavailable

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
    cudart = runtime()
    status, *results = getattr(cudart, name)(*arguments)
    if int(status) != 0:
        cudart.cudaGetLastError()  # else CUDA keeps the error, and the next caller to ask is told of it
        hint = f"; {SMALLER_BATCH}" if status.name == "cudaErrorMemoryAllocation" else ""
        raise BackendUnavailable(f"{name} failed: {status.name} ({int(status)}){hint}")
    return results[0] if results else None


@contextmanager
def device_zero() -> Iterator[None]:
    """Make device 0 the thread's current device for a while: the caller may have chosen another for its own work."""
    before = int(call("cudaGetDevice"))
    if before == 0:
        yield
        return
    call("cudaSetDevice", 0)
    try:
        yield
    finally:
        call("cudaSetDevice", before)
