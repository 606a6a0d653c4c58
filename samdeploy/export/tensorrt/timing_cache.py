"""How fast each of TensorRT's kernels was on this GPU, kept for the next build: it then takes a fraction of the time.

Timings hold for one package version, GPU and driver alone, which are the entry's key.  TensorRT-RTX has none: it does
not time kernels during the build (its timing-cache functions do nothing and warn), and keeps what it compiles at run
time instead (`samdeploy.backends.tensorrt.runtime_cache`).
"""

from __future__ import annotations

from typing import Any

from samdeploy.backends.device.cuda import Device
from samdeploy.backends.user_cache import read_cache, write_cache

_KIND = "timing"


class TimingCache:
    """The timing cache of one build.

    Attributes:
        note: why a cache that is there was not used, or could not be kept; else "".
    """

    def __init__(self, trt: Any, device: Device | None) -> None:
        self.note = ""
        self._used = device is not None and trt.__name__ == "tensorrt"
        self._loaded = b""
        self._key = {
            "package": f"{trt.__name__} {trt.__version__}",
            "gpu": f"{device.name} {device.capability}" if device else "",
            "driver": device.driver if device else "",
        }

    def load_into(self, config: Any) -> None:
        """Give a builder config what earlier builds measured."""
        if not self._used:
            return
        self._loaded, self.note = read_cache(_KIND, self._key)
        # A cache that TensorRT cannot read becomes an empty one, which it says in its log alone.
        if _set(config, self._loaded):
            return
        self._loaded = b""
        empty = _set(config, b"")
        self.note = "timing cache ignored: TensorRT refuses it" if empty else "no timing cache: TensorRT makes none"

    def keep(self, config: Any) -> None:
        """Write what is known after a build."""
        if not self._used:
            return
        cache = config.get_timing_cache()
        memory = None if cache is None else cache.serialize()
        timings = b"" if memory is None else bytes(memory)
        if timings and timings != self._loaded:
            self.note = write_cache(_KIND, self._key, timings) or self.note


def _set(config: Any, content: bytes) -> bool:
    cache = config.create_timing_cache(content)
    return cache is not None and bool(config.set_timing_cache(cache, False))  # False: not one of another GPU
