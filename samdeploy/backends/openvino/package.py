"""Import OpenVINO without its telemetry, which looks up a name server and writes an id below `~/intel`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

_TELEMETRY = "openvino_telemetry"


def import_openvino() -> Any:
    """The package `openvino`.  Its telemetry stays off unless the user turned it on: `opt_in_out --opt_in`.

    Without the package `openvino_telemetry` OpenVINO uses a stub of its own that sends nothing.  An application that
    imported OpenVINO before has made its own choice.
    """
    if "openvino" in sys.modules or _is_wanted():
        return importlib.import_module("openvino")
    found = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # an import of it fails
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[_TELEMETRY]
        if found is not None:
            sys.modules[_TELEMETRY] = found


def _is_wanted() -> bool:
    try:
        return (Path.home() / "intel" / _TELEMETRY).read_bytes().strip() == b"1"
    except (OSError, RuntimeError):  # RuntimeError: no home
        return False
