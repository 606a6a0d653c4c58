"""From nothing to the first answer, and the memory it takes: measured in fresh processes."""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from samdeploy.arrays import UInt8Array
from samdeploy.bench.engines import Engine
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable

REPEATS = 3
# A first start may compile kernels for minutes; a process that hangs must end all the same.
_LIMIT_S = 600
_CHILD = "samdeploy.bench.cold_start_child"


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Medians over fresh processes, each with one session and one image.

    Attributes:
        processes: how many.
        start_to_answer_ms: from the start of the process, the interpreter included.
        open_to_answer_ms: from before the bundle is opened: packages loaded, engine opened and checked on its golden
            images, one image run.
        first_run_ms: the run itself.
        host_peak_mib: largest resident memory; the largest of all processes.
        device_mib: memory of the GPU after the answer; None on the CPU, or where the driver does not say.
        device_note: why it does not; "" otherwise.
    """

    processes: int
    start_to_answer_ms: float
    open_to_answer_ms: float
    first_run_ms: float
    host_peak_mib: float
    device_mib: float | None
    device_note: str


def measure_cold_start(bundle: Bundle, engine: Engine, device: str, image: UInt8Array) -> ColdStart:
    """Start `REPEATS` processes, one after the other.

    The first may find its files on the disk only; the median of three is that of a machine that has read them once.

    Args:
        image: uint8 [H, W, 3], RGB.

    Raises:
        BackendUnavailable: the engine cannot be opened there, or the process died; with its reason.
    """
    found = [_child(bundle, engine, device, image) for _ in range(REPEATS)]

    def median(key: str) -> float:
        return statistics.median(float(line[key]) for line in found)

    on_device = [float(line["device_mib"]) for line in found if line["device_mib"] is not None]
    return ColdStart(
        processes=len(found),
        start_to_answer_ms=median("start_to_answer_ms"),
        open_to_answer_ms=statistics.median(float(line["open_ms"]) + float(line["first_run_ms"]) for line in found),
        first_run_ms=median("first_run_ms"),
        host_peak_mib=max(float(line["host_peak_mib"]) for line in found),
        device_mib=max(on_device, default=None),
        device_note=str(found[0]["device_note"]),
    )


def _child(bundle: Bundle, engine: Engine, device: str, image: UInt8Array) -> dict[str, Any]:
    line = [sys.executable, "-m", _CHILD, str(bundle.root), engine.backend, engine.precision, device]
    start = time.monotonic()
    try:
        done = subprocess.run(line, input=image.tobytes(), capture_output=True, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise BackendUnavailable(f"a fresh process gave no answer within {_LIMIT_S} s") from None
    if done.returncode:
        raise BackendUnavailable(f"a fresh process {_death(done.returncode)}{_last_line(done.stderr)}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "reason" in found:
        raise BackendUnavailable(str(found["reason"]))
    return {**found, "start_to_answer_ms": (found["answered_at"] - start) * 1e3}


def _death(code: int) -> str:
    """In words: -11 is "died of SIGSEGV"."""
    return f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return f": {lines[-1]}" if lines else ""
