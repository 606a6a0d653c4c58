"""What NVIDIA's management library says, and what is said where it cannot."""

from __future__ import annotations

import pytest

from samdeploy.backends.device import cuda
from samdeploy.bench.nvml import THROTTLING, GpuState, device_memory_mib, gpu_state, limits_of
from samdeploy.errors import BackendUnavailable

DEVICES, WHY = cuda.cuda_devices()


def test_the_names_of_the_reasons_are_the_librarys() -> None:
    nvml = pytest.importorskip("pynvml", reason="pip install 'samdeploy[bench]'")
    ours = {
        "idle": nvml.nvmlClocksEventReasonGpuIdle,
        "application clocks set": nvml.nvmlClocksEventReasonApplicationsClocksSetting,
        "software power cap": nvml.nvmlClocksEventReasonSwPowerCap,
        "hardware slowdown": nvml.nvmlClocksThrottleReasonHwSlowdown,
        "sync boost": nvml.nvmlClocksEventReasonSyncBoost,
        "software thermal slowdown": nvml.nvmlClocksEventReasonSwThermalSlowdown,
        "hardware thermal slowdown": nvml.nvmlClocksThrottleReasonHwThermalSlowdown,
        "hardware power brake": nvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown,
        "display clocks set": nvml.nvmlClocksEventReasonDisplayClockSetting,
    }
    assert {name: limits_of(bit) for name, bit in ours.items()} == {name: (name,) for name in ours}
    assert limits_of(0) == ()
    assert limits_of(0x1FF) == tuple(ours)


def test_an_idle_gpu_is_not_throttled_and_a_hot_one_is() -> None:
    def state(*limits: str) -> GpuState:
        return GpuState("a GPU", "590.1", 1400, 1980, 2600, 60, 300.0, 700.0, limits)

    assert state("idle", "application clocks set", "sync boost", "display clocks set").throttled == ()
    assert state("idle", "software power cap", "hardware thermal slowdown").throttled == (
        "software power cap",
        "hardware thermal slowdown",
    )
    assert len(THROTTLING) == 5


@pytest.mark.skipif(DEVICES > 0, reason="there is a CUDA device")
def test_without_a_gpu_it_says_so() -> None:
    for ask in (gpu_state, device_memory_mib):
        with pytest.raises(BackendUnavailable, match="no CUDA device: "):
            ask()


@pytest.mark.gpu
@pytest.mark.skipif(not DEVICES, reason=f"no CUDA device: {WHY}")
def test_a_gpu_says_how_it_is() -> None:
    pytest.importorskip("pynvml", reason="pip install 'samdeploy[bench]'")
    found = gpu_state()
    assert found.name
    assert found.driver
    assert found.sm_clock_max_mhz is not None
    assert 0 < (found.sm_clock_mhz or 0) <= found.sm_clock_max_mhz
    assert 0 < (found.temperature_c or 0) < 110
