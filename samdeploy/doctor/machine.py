"""The machine: runtimes that are really imported, extras, GPU, and what stands in the way."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import samdeploy
from samdeploy.backends import BACKENDS, availability
from samdeploy.backends.device.cuda import cuda_devices, describe_device
from samdeploy.bench.load import usable_cores
from samdeploy.doctor.findings import Extra, Machine, Runtime
from samdeploy.evaluate.machine import machine as machine_line
from samdeploy.files import cache_folder

# Backend -> distributions that bring it; any of them does.
_PACKAGES = {
    "pytorch": ("torch",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt-rtx-cu13"),
}
# Extras for developers of samdeploy.
_NOT_SHOWN = ("dev",)


def examine_machine() -> Machine:
    """Import every runtime that is installed, and look at everything that an engine needs.  Takes some seconds."""
    count, why = cuda_devices()
    gpu = ""
    if count:
        device = describe_device()
        gpu = f"{device.name}, {device.capability}, CUDA {device.driver}" + (f" ({count} devices)" if count > 1 else "")
    runtimes = tuple(_runtime(name, has_gpu=bool(count)) for name in BACKENDS)
    extras = tuple(_extras())
    try:
        cache, no_cache = str(cache_folder()), ""
    except FileNotFoundError as error:
        cache, no_cache = "none", f"no cache: {error.strerror}"
    return Machine(
        processor=machine_line(),
        cores=usable_cores(),
        memory_gib=_memory_gib(),
        gpu=gpu,
        no_gpu=why or "",
        samdeploy=samdeploy.__version__,
        python=platform.python_version(),
        cache=cache,
        runtimes=runtimes,
        extras=extras,
        problems=(*_problems(runtimes, extras), *([no_cache] if no_cache else _cache_problems(Path(cache)))),
    )


def _runtime(name: str, *, has_gpu: bool) -> Runtime:
    packages = {package: version for package in _PACKAGES[name] if (version := _version(package))}
    reason = availability(name) or ""
    lacks_gpu = not has_gpu and BACKENDS[name].devices == ("cuda",)
    return Runtime(name, packages, reason, bool(reason and packages and not lacks_gpu))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _extras() -> Iterator[Extra]:
    """Every extra, held against what is installed; none where samdeploy itself is not."""
    from packaging.requirements import Requirement

    try:
        metadata = importlib.metadata.metadata("samdeploy")
    except importlib.metadata.PackageNotFoundError:
        return
    requirements = [Requirement(text) for text in importlib.metadata.requires("samdeploy") or ()]
    for extra in metadata.get_all("Provides-Extra") or ():
        if extra in _NOT_SHOWN:
            continue
        missing, outdated = [], []
        for wanted in requirements:
            if wanted.marker is None or not wanted.marker.evaluate({"extra": extra}):
                continue
            found = _version(wanted.name)
            if found is None:
                missing.append(f"{wanted.name}{wanted.specifier}")
            elif not wanted.specifier.contains(found, prereleases=True):
                outdated.append(f"{wanted.name}{wanted.specifier} ({found} is installed)")
        yield Extra(extra, tuple(missing), tuple(outdated))


def _problems(runtimes: tuple[Runtime, ...], extras: tuple[Extra, ...]) -> Iterator[str]:
    yield from (f"{one.name}: {one.reason}" for one in runtimes if one.is_broken)
    if not any(not one.reason for one in runtimes):
        yield "no runtime can run here: pip install 'samdeploy[onnxruntime]' or 'samdeploy[openvino]'"
    both = _PACKAGES["onnxruntime"]
    if all(_version(package) for package in both):
        yield (
            f"{' and '.join(both)} are both installed, and each overwrites the other's files: pip uninstall -y "
            f"{' '.join(both)}, then install one of them"
        )
    for extra in extras:
        # Of an extra of which nothing is there nobody misses anything.
        if extra.outdated:
            yield f"extra {extra.name}: {', '.join(extra.outdated)}; pip install --upgrade 'samdeploy[{extra.name}]'"


def _cache_problems(cache: Path) -> Iterator[str]:
    place = next(folder for folder in (cache, *cache.parents) if folder.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        yield f"the cache {cache} cannot be made: {place} is not writable; name another place with SAMDEPLOY_CACHE"


def _memory_gib() -> float | None:
    """Of the machine, or of this process's control group where that allows less."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        limit = "max"
    return min(total, int(limit) if limit.isdigit() else total) / 2**30
