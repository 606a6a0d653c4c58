"""One run of `Classifier.stream` in a process of its own: stream_child.py BUNDLE BATCH SECONDS FILE...

Prints one JSON line with the fields of the C++ programs beside it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator


def main() -> None:
    bundle, batch, seconds, *files = sys.argv[1:]
    start = time.perf_counter()
    from samdeploy import Classifier

    with Classifier.open(bundle, "openvino") as classifier:
        opened = time.perf_counter()
        classes = [prediction.index for prediction in classifier.stream(files, batch=int(batch))]  # warms up as well
        begin = time.perf_counter()

        def passes() -> Iterator[str]:
            """Whole passes over the files in one stream, so that it is filled and emptied once, as the worker is."""
            while time.perf_counter() - begin < float(seconds):
                yield from files

        images = sum(1 for _ in classifier.stream(passes(), batch=int(batch)))
        took = time.perf_counter() - begin
    if "torch" in sys.modules:
        raise SystemExit("PyTorch was loaded")
    report = {
        "program": "stream", "batch": int(batch), "images": images, "seconds": took, "images_per_s": images / took,
        "open_ms": 1e3 * (opened - start), "peak_rss_mib": peak_mib(), "classes": classes,
    }  # fmt: skip
    print(json.dumps(report))


def peak_mib() -> float:
    """VmHWM: `ru_maxrss` would show the parent's peak until it is passed."""
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 - no module more than stream needs
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main()
