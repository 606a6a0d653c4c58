"""Clocks, temperature and throttling of the GPU, from NVIDIA's management library; imported late, and may be absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from samdeploy.backends.device import cuda
from samdeploy.errors import BackendUnavailable

# nvmlClocksEventReasons in nvml.h: why the clock is not higher.
_REASONS = {
    0x001: "idle",
    0x002: "application clocks set",
    0x004: "software power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "software thermal slowdown",
    0x040: "hardware thermal slowdown",
    0x080: "hardware power brake",
    0x100: "display clocks set",
}
# Those that make a figure one of a hindered device.
THROTTLING = frozenset(name for bit, name in _REASONS.items() if bit & 0x0EC)


@dataclass(frozen=True, slots=True)
class GpuState:
    """The GPU at one moment; None where the driver does not say.

    Attributes:
        sm_clock_mhz, sm_clock_max_mhz, memory_clock_mhz: now, the highest possible, and of the memory now.
        power_w, power_limit_w: drawn, and allowed.
        limits: what holds the clock down; those of `THROTTLING` spoil a figure.
    """

    name: str
    driver: str
    sm_clock_mhz: int | None
    sm_clock_max_mhz: int | None
    memory_clock_mhz: int | None
    temperature_c: int | None
    power_w: float | None
    power_limit_w: float | None
    limits: tuple[str, ...]

    @property
    def throttled(self) -> tuple[str, ...]:
        """The limits that spoil a figure."""
        return tuple(name for name in self.limits if name in THROTTLING)


def gpu_state() -> GpuState:
    """CUDA device 0 as it is now.

    Raises:
        BackendUnavailable: no GPU, no nvidia-ml-py, or the library fails.
    """
    with _library() as nvml:
        device = _device(nvml)
        reasons = _ask(nvml, "nvmlDeviceGetCurrentClocksEventReasons", device)
        if reasons is None:  # drivers before 535 have the older name only
            reasons = _ask(nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", device)
        power, limit = (_ask(nvml, f"nvmlDeviceGet{what}", device) for what in ("PowerUsage", "PowerManagementLimit"))
        return GpuState(
            name=_text(_ask(nvml, "nvmlDeviceGetName", device)),
            driver=_text(_ask(nvml, "nvmlSystemGetDriverVersion")),
            sm_clock_mhz=_ask(nvml, "nvmlDeviceGetClockInfo", device, nvml.NVML_CLOCK_SM),
            sm_clock_max_mhz=_ask(nvml, "nvmlDeviceGetMaxClockInfo", device, nvml.NVML_CLOCK_SM),
            memory_clock_mhz=_ask(nvml, "nvmlDeviceGetClockInfo", device, nvml.NVML_CLOCK_MEM),
            temperature_c=_ask(nvml, "nvmlDeviceGetTemperature", device, nvml.NVML_TEMPERATURE_GPU),
            power_w=None if power is None else power / 1000,
            power_limit_w=None if limit is None else limit / 1000,
            limits=limits_of(reasons or 0),
        )


def device_memory_mib() -> float:
    """What this process holds of device 0 now, in MiB.

    Raises:
        BackendUnavailable: as `gpu_state`; or the driver shows no processes, as in many containers.
    """
    with _library() as nvml:
        processes = _ask(nvml, "nvmlDeviceGetComputeRunningProcesses", _device(nvml)) or []
        for process in processes:
            if process.pid == os.getpid() and process.usedGpuMemory is not None:
                return float(process.usedGpuMemory) / 2**20
    raise BackendUnavailable("the NVIDIA driver does not show this process's memory (in a container it sees other ids)")


def limits_of(reasons: int) -> tuple[str, ...]:
    """The names of the bits in NVML's clocks event reasons."""
    return tuple(name for bit, name in _REASONS.items() if reasons & bit)


@contextmanager
def _library() -> Iterator[Any]:
    count, why = cuda.cuda_devices()
    if not count:
        raise BackendUnavailable(f"no CUDA device: {why}")
    try:
        import pynvml
    except ModuleNotFoundError:
        raise BackendUnavailable(
            "clocks, temperature and throttling are not known: nvidia-ml-py is not installed; "
            "pip install 'samdeploy[bench]'"
        ) from None
    try:
        pynvml.nvmlInit()
        try:
            yield pynvml
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise BackendUnavailable(f"NVIDIA's management library fails: {error}") from error


def _device(nvml: Any) -> Any:
    # By its place on the bus: CUDA_VISIBLE_DEVICES renumbers CUDA's devices, and NVML does not look at it.
    bus = cuda.call("cudaDeviceGetPCIBusId", 32, 0)
    return nvml.nvmlDeviceGetHandleByPciBusId(bytes(bus).rstrip(b"\0"))


def _ask(nvml: Any, function: str, *arguments: Any) -> Any:
    """One value; None where this GPU, driver or version of the package does not know it."""
    try:
        return getattr(nvml, function)(*arguments)
    except (nvml.NVMLError, AttributeError):
        return None


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
