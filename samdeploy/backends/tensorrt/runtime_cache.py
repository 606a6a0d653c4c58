"""TensorRT-RTX's runtime cache: the kernels that it compiles on the target GPU when an engine first runs.

With it the second start of an application takes as long as one of TensorRT.  TensorRT itself compiles everything
during the build and has no such cache.
"""

from __future__ import annotations

from typing import Any

from samdeploy.backends.device.cuda import Device
from samdeploy.backends.user_cache import read_cache, write_cache

_KIND = "runtime"


class RuntimeCache:
    """The compiled kernels of one engine on this machine.

    Attributes:
        note: why a cache that is there was not used, or could not be kept; else "".
    """

    def __init__(self, trt: Any, device: Device, plan_sha256: str) -> None:
        self.note = ""
        self._cache: Any = None
        self._loaded = b""
        self._has_cache = hasattr(trt, "IRuntimeCache")
        self._key = {
            "package": f"{trt.__name__} {trt.__version__}",
            "gpu": f"{device.name} {device.capability}",
            "driver": device.driver,
            "plan": plan_sha256,
        }

    def execution_context(self, engine: Any) -> Any:
        """A context of `engine`, with what an earlier run compiled; None where TensorRT cannot make one."""
        if not self._has_cache:
            return engine.create_execution_context()
        config = engine.create_runtime_config()
        self._cache = config.create_runtime_cache()
        self._loaded, self.note = read_cache(_KIND, self._key)
        if self._loaded and not self._cache.deserialize(self._loaded):
            self.note, self._loaded = "runtime cache ignored: TensorRT-RTX refuses it", b""
        config.set_runtime_cache(self._cache)
        return engine.create_execution_context(config)

    def keep(self) -> None:
        """Write the kernels that were compiled since; call this while the context lives."""
        if self._cache is None:
            return
        memory = self._cache.serialize()
        kernels = b"" if memory is None else bytes(memory)
        if kernels and kernels != self._loaded:
            self.note = write_cache(_KIND, self._key, kernels)
        self._cache = None
