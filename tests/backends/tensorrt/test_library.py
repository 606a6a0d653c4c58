"""The TensorRT packages: failing to start, versions, error lines, and the logger that TensorRT points to."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from samdeploy.backends.device import cuda
from samdeploy.backends.tensorrt import library as tensorrt_library
from samdeploy.backends.tensorrt.library import create, error_lines, error_log, version_numbers
from samdeploy.errors import BackendUnavailable

trt = pytest.importorskip("tensorrt_rtx", reason="pip install 'samdeploy[tensorrt-rtx]'")

# Two runtimes that overlap and are closed in the order they were opened, on the real library.  Memory that the first
# logger left is written over; then what TensorRT's own global pointer points at must still be a logger.
OVERLAPPING = """
import ctypes, gc
import tensorrt_rtx as trt
from samdeploy.backends.tensorrt.library import error_log

first, second = trt.Runtime(error_log(trt)), trt.Runtime(error_log(trt))
path = next(line.split()[-1] for line in open("/proc/self/maps") if "libtensorrt_rtx.so" in line)
get_logger = ctypes.CDLL(path).getLogger
get_logger.restype = ctypes.c_void_p
table = ctypes.c_uint64.from_address(get_logger()).value
del first
gc.collect()
malloc = ctypes.CDLL(None).malloc
malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
for size in range(8, 264, 8):
    for _ in range(1000):
        ctypes.memset(malloc(size), 0x41, size)
assert ctypes.c_uint64.from_address(get_logger()).value == table, "TensorRT's global logger was freed"
"""


def test_the_logger_outlives_every_session() -> None:
    done = subprocess.run([sys.executable, "-c", OVERLAPPING], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_error_lines_are_those_of_one_call() -> None:
    runtime = create(trt, "Runtime", error_log(trt))
    assert runtime.deserialize_cuda_engine(b"no plan" * 100) is None
    before, after = error_lines(trt), error_lines(trt)
    assert before.report() == "it gives no reason"
    error_log(trt).log(trt.ILogger.Severity.ERROR, "a\nfailure")
    error_log(trt).log(trt.ILogger.Severity.WARNING, "a warning")
    assert after.report() == "a failure"
    assert error_lines(trt).report() == "it gives no reason"


def test_error_lines_of_a_process_that_fails_for_days_are_bounded() -> None:
    log, lines = error_log(trt), error_lines(trt)
    for number in range(1000):
        log.log(trt.ILogger.Severity.ERROR, f"failure {number}")
    assert 100 < len(lines.report().split("; ")) < 1000
    assert lines.report().endswith("failure 999")


class NotStarting:
    """As the bindings of TensorRT 11.4 behave where the library returns no object."""

    __version__ = "11.4.0.106"
    ILogger = trt.ILogger

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def Builder(self, log: Any) -> None:  # noqa: N802 - TensorRT's name
        log.log(trt.ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    def Runtime(self, log: Any) -> None:  # noqa: N802
        raise TypeError("incompatible constructor arguments")


@pytest.mark.parametrize(
    ("name", "distribution", "driver", "text"),
    [
        (
            "tensorrt",
            "tensorrt_cu13",
            "12.4",
            "TensorRT 11.4.0.106 does not start (Builder): CUDA initialization failure with error: 35; it is built "
            "for CUDA 13, which needs NVIDIA driver 580 or newer; the driver here is for CUDA 12.4; for an older "
            "driver, pip install tensorrt-cu12",
        ),
        ("tensorrt", "tensorrt_cu12", "11.8", "it is built for CUDA 12, which needs NVIDIA driver 525 or newer; the"),
        ("tensorrt_rtx", "tensorrt_rtx_cu13", "12.4", "newer; the driver here is for CUDA 12.4"),
        ("tensorrt", "built-by-hand", "12.4", "its CUDA version is unknown; the driver here is for CUDA 12.4"),
    ],
)
def test_a_library_that_does_not_start_names_the_driver_it_needs(
    monkeypatch: pytest.MonkeyPatch, name: str, distribution: str, driver: str, text: str
) -> None:
    monkeypatch.setattr(cuda, "cuda_devices", lambda: (1, None))
    monkeypatch.setattr(cuda, "describe_device", lambda: cuda.Device("NVIDIA T4", "SM75", driver))
    metadata = SimpleNamespace(packages_distributions=lambda: {name: [distribution]})
    monkeypatch.setattr(tensorrt_library.importlib, "metadata", metadata)
    with pytest.raises(BackendUnavailable) as caught:
        create(NotStarting(name), "Builder", error_log(trt))
    assert text in str(caught.value)
    assert ("tensorrt-cu12" in str(caught.value)) == (distribution == "tensorrt_cu13")


def test_other_type_errors_are_not_taken_for_it() -> None:
    with pytest.raises(TypeError, match="incompatible"):
        create(NotStarting("tensorrt"), "Runtime", error_log(trt))


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("10.13.3.9.post1", "10.13.3.9"), ("11.4.0.106", "11.4.0.106"), ("10.12", "10.12"), ("dev", "")],
)
def test_the_four_numbers_of_a_version(version: str, numbers: str) -> None:
    assert version_numbers(version) == numbers
