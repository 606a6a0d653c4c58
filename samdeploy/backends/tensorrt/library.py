"""The Python packages of TensorRT and TensorRT-RTX: import, logger, objects that may fail to start, version.

Only names and signatures that both packages share are used; what differs is asked for with `hasattr`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import threading
from collections import deque
from typing import Any

from samdeploy.backends.device import cuda
from samdeploy.errors import BackendUnavailable

# Python module -> the extra that installs it.  The module's name is also `built_for["runtime"]`.
RUNTIMES = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}

# The oldest Linux driver for each major version of CUDA (CUDA Toolkit release notes, table "CUDA Toolkit and
# Minimum Required Driver Version for CUDA Minor Version Compatibility").
_OLDEST_DRIVER = {12: 525, 13: 580}
# What pybind11 raises where the library returns no object.
_NULL = "factory function returned nullptr"
_KEPT_LINES = 200


def import_runtime(name: str) -> Any:
    """The Python module of TensorRT ("tensorrt") or TensorRT-RTX ("tensorrt_rtx").

    Raises:
        BackendUnavailable: it is not installed, or its libraries do not load.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            f"{TITLES[name]} is not installed; pip install 'samdeploy[{RUNTIMES[name]}]'"
        ) from error
    except (ImportError, OSError) as error:
        raise BackendUnavailable(f"{TITLES[name]} is installed but its libraries do not load: {error}") from error


def version_numbers(version: str) -> str:
    """The up to four numbers that name a release: "10.13.3.9" of "10.13.3.9.post1", "" where there are none.

    A wheel appends ".post1" for a new packaging of the same library; the C++ library reports the four numbers alone.
    """
    found = re.match(r"\d+(\.\d+){0,3}", version)
    return found.group() if found else ""


class ErrorLines:
    """The error lines that TensorRT logs from the creation of this object on."""

    def __init__(self, collector: Any) -> None:
        self._log = collector
        self._start = collector.count

    def report(self) -> str:
        """The lines, joined; a sentence where there are none."""
        return "; ".join(dict.fromkeys(self._log.since(self._start))) or "it gives no reason"


_loggers: dict[type, Any] = {}  # by the package's ILogger
_loggers_lock = threading.Lock()


def error_log(trt: Any) -> Any:
    """The logger of the package `trt`, an `ILogger` that keeps error lines instead of printing them.

    There is one for the life of the process: TensorRT keeps a bare pointer to the first logger that it is given and
    uses it for all later objects, so freeing that logger crashes whatever lives on.
    """
    with _loggers_lock:
        if trt.ILogger not in _loggers:
            _loggers[trt.ILogger] = _new_logger(trt)
        return _loggers[trt.ILogger]


def error_lines(trt: Any) -> ErrorLines:
    """Start collecting the error lines of one call."""
    return ErrorLines(error_log(trt))


def _new_logger(trt: Any) -> Any:
    class ErrorLog(trt.ILogger):  # type: ignore[misc]  # the base comes with the package, which has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.count = 0
            self._lines: deque[str] = deque(maxlen=_KEPT_LINES)  # a process that fails for days must not grow

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self._lines.append(" ".join(message.split()))
                self.count += 1

        def since(self, start: int) -> list[str]:
            lines = list(self._lines)
            return lines[max(len(lines) - (self.count - start), 0) :]

    return ErrorLog()


def create(trt: Any, kind: str, *arguments: Any) -> Any:
    """An object of TensorRT, such as `trt.Builder(logger)`, which the library may refuse to make.

    Raises:
        BackendUnavailable: the library does not start; with its log, and the driver that it needs.
    """
    lines = error_lines(trt)
    try:
        return getattr(trt, kind)(*arguments)
    except TypeError as error:
        if _NULL not in str(error):
            raise
    title = f"{TITLES[trt.__name__]} {trt.__version__}"
    raise BackendUnavailable(f"{title} does not start ({kind}): {lines.report()}; {_driver_cure(trt)}")


def _driver_cure(trt: Any) -> str:
    """Which driver this package needs, which one is here, and the package for older drivers."""
    needed = _cuda_major(trt)
    count, why = cuda.cuda_devices()
    here = f"the driver here is for CUDA {cuda.describe_device().driver}" if count else why
    driver = f", which needs NVIDIA driver {_OLDEST_DRIVER[needed]} or newer" if needed in _OLDEST_DRIVER else ""
    built = f"it is built for CUDA {needed}{driver}" if needed else "its CUDA version is unknown"
    older = "; for an older driver, pip install tensorrt-cu12" if needed > 12 and trt.__name__ == "tensorrt" else ""
    return f"{built}; {here}{older}"


def _cuda_major(trt: Any) -> int:
    """The CUDA version in the name of the distribution that brought the module, 13 of "tensorrt-cu13"; 0: unknown."""
    for distribution in importlib.metadata.packages_distributions().get(trt.__name__, ()):
        found = re.search(r"cu(\d\d)", distribution)
        if found:
            return int(found.group(1))
    return 0
