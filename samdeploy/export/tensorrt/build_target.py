"""Which package builds an engine, and for which GPUs."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

from samdeploy.backends.device.cuda import Device, cuda_devices, describe_device
from samdeploy.backends.tensorrt.library import RUNTIMES, import_runtime
from samdeploy.backends.tensorrt.session import CURRENT, named_targets, unsupported
from samdeploy.errors import BackendUnavailable, InputError, unknown

# Where there is no GPU an engine must be built for a named one; the original work ran on an RTX A4000, which is SM86.
DEFAULT_TARGET = "SM86"


def builder_package(engine: str) -> Any:
    """TensorRT or TensorRT-RTX, by the meaning of `engine`."""
    reasons = []
    for name in RUNTIMES if engine == "trt" else ("tensorrt_rtx",):
        try:
            return import_runtime(name)
        except BackendUnavailable as error:
            reasons.append(str(error))
    raise BackendUnavailable(f"no engine can be built: {'; '.join(reasons)}")


def check_target(engine: str, target: str) -> None:
    """Refuse a target before any work is done, as far as this can be known here.

    Raises:
        InputError: no compute capability is called so, or the installed package does not build for it.
    """
    for name in target.replace(",", "+").split("+"):
        if name != CURRENT and not re.fullmatch(r"SM\d{2,3}", name):
            raise InputError(f"target: {name!r} found; a compute capability such as SM86, or {CURRENT!r}, expected")
    with suppress(BackendUnavailable):
        build_targets(builder_package(engine), target, describe_device() if cuda_devices()[0] else None)


def build_targets(trt: Any, target: str | tuple[str, ...] | None, device: Device | None) -> tuple[str, ...]:
    """What to build for: compute capabilities, or `CURRENT` alone."""
    asked = tuple(target.replace(",", "+").split("+")) if isinstance(target, str) else tuple(target or ())
    if trt.__name__ == "tensorrt":
        if device is None:
            raise BackendUnavailable(
                f"TensorRT builds on the GPU that will run the engine, and there is none here: {cuda_devices()[1]}; "
                "build on that machine, or use --engine trt-rtx, which builds for a named GPU"
            )
        if asked not in ((), (CURRENT,)):
            raise InputError(
                f"target {'+'.join(asked)!r} found, but TensorRT builds for the GPU here alone ({device.capability}); "
                "named targets belong to --engine trt-rtx"
            )
        return (CURRENT,)
    known = named_targets(trt)
    for name in asked:
        if name != CURRENT and name not in known:
            raise InputError(unknown("target", name, [CURRENT, *known]))
    if len(set(asked)) != len(asked) or (CURRENT in asked and len(asked) > 1):
        raise InputError(f"target {'+'.join(asked)!r} found; each name once, or {CURRENT!r} alone, expected")
    if not asked and device is None:
        return (DEFAULT_TARGET,)
    if asked not in ((), (CURRENT,)):
        return asked
    if device is None:
        raise BackendUnavailable(
            f"target {CURRENT!r} needs a GPU here: {cuda_devices()[1]}; name one: {', '.join(known)}"
        )
    refused = unsupported(trt, device)
    if refused:
        raise BackendUnavailable(f"{refused}, or name a --target to build for another machine")
    return (CURRENT,)
