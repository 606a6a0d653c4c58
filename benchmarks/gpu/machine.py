"""What this ran on: versions, and the GPU's state.  Never names of hosts or folders."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

_PACKAGES = (
    *("torch", "torchvision", "triton", "numpy", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu"),
    *("tensorrt-cu13-bindings", "tensorrt-rtx-cu13-bindings", "cuda-bindings", "nvidia-cuda-runtime"),
    *("nvidia-cudnn-cu13", "nvidia-cublas", "nvidia-ml-py", "pytest"),
)


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "system": platform.system(), "cpus": str(os.cpu_count())}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def gpu() -> dict[str, Any]:
    """Name, driver and compute capability of device 0; {"none": reason} where there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
        device = pynvml.nvmlDeviceGetHandleByIndex(0)
        return {
            "name": pynvml.nvmlDeviceGetName(device),
            "driver": pynvml.nvmlSystemGetDriverVersion(),
            "compute_capability": ".".join(map(str, pynvml.nvmlDeviceGetCudaComputeCapability(device))),
            "memory_mib": pynvml.nvmlDeviceGetMemoryInfo(device).total >> 20,
            "power_limit_w": pynvml.nvmlDeviceGetPowerManagementLimit(device) // 1000,
            "sm_clock_max_mhz": pynvml.nvmlDeviceGetMaxClockInfo(device, pynvml.NVML_CLOCK_SM),
        }
    except Exception as error:
        return {"none": f"{type(error).__name__}: {error}"}


def clocks() -> dict[str, Any]:
    """The GPU's clocks, heat and reasons for slowing down at this moment; {} where it cannot be asked."""
    try:
        import pynvml

        pynvml.nvmlInit()
        device = pynvml.nvmlDeviceGetHandleByIndex(0)
        return {
            "sm_mhz": pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_SM),
            "memory_mhz": pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_MEM),
            "temperature_c": pynvml.nvmlDeviceGetTemperature(device, pynvml.NVML_TEMPERATURE_GPU),
            "power_w": pynvml.nvmlDeviceGetPowerUsage(device) // 1000,
            "slowdown_reasons": hex(pynvml.nvmlDeviceGetCurrentClocksEventReasons(device)),
        }
    except Exception:
        return {}
