"""A fresh process that opens an engine, runs one image, and says what that took: one line of JSON.

    python -m samdeploy.bench.cold_start_child BUNDLE BACKEND PRECISION DEVICE < image

The image comes as raw uint8 [H, W, 3].  Times are of the monotonic clock, which all processes share.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main() -> None:
    """Read the arguments, do the work, print the line."""
    root, backend, precision, device = sys.argv[1:]
    pixels = sys.stdin.buffer.read()
    opening = time.monotonic()  # numpy and the runtime are loaded after this: an application waits for that, too
    from samdeploy.errors import SamdeployError

    try:
        line = _first_answer(root, backend, precision, device, pixels, opening)
    except SamdeployError as error:
        line = {"reason": str(error)}
    print(json.dumps(line), flush=True)


def _first_answer(
    root: str, backend: str, precision: str, device: str, pixels: bytes, opening: float
) -> dict[str, object]:
    import numpy as np

    from samdeploy.backends import open_session
    from samdeploy.bundle import open_bundle

    bundle = open_bundle(root)
    size = bundle.spec.preprocessing
    image = np.frombuffer(pixels, np.uint8).reshape(1, size.height, size.width, 3)
    with open_session(bundle, backend, device=device, precision=precision) as session:
        opened = time.monotonic()
        session.run(image)
        answered = time.monotonic()
        return {
            "answered_at": answered,
            "open_ms": (opened - opening) * 1e3,
            "first_run_ms": (answered - opened) * 1e3,
            "host_peak_mib": peak_memory_mib(),
            **_device_memory(session.device),
        }


def peak_memory_mib() -> float:
    """The largest resident memory of this process so far, in MiB.

    From VmHWM where there is a /proc: `ru_maxrss` would be that of the parent, where the parent was larger, because
    Linux keeps it over fork and exec.
    """
    import resource

    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    except (OSError, StopIteration):
        # Bytes on macOS, KiB elsewhere.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def _device_memory(device: str) -> dict[str, object]:
    if device == "cpu":
        return {"device_mib": None, "device_note": ""}
    from samdeploy.bench.nvml import device_memory_mib
    from samdeploy.errors import BackendUnavailable

    try:
        return {"device_mib": device_memory_mib(), "device_note": ""}
    except BackendUnavailable as error:
        return {"device_mib": None, "device_note": str(error)}


if __name__ == "__main__":
    main()
