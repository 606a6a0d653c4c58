"""A million rows: memory, seconds a row from the first tenth to the last, how soon a resumed labelling begins.

    python benchmarks/label/million.py BUNDLE [--rows 1000000] [--out FILE]

The images are small, made on the way and packed into tars of 10,000 (one in a thousand is broken), in a temporary
folder.  Then the last part, of 100 rows, is removed, and the labelling is started again: how long that takes.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

from samdeploy import Classifier
from samdeploy.evaluate.machine import machine, versions
from samdeploy.label.label import label
from samdeploy.label.options import LabelOptions

PER_TAR = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Classifier.open(options.bundle, "onnxruntime") as classifier:
        os.environ["SAMDEPLOY_CACHE"] = f"{name}/cache"
        _write(Path(name), options.rows + 100)
        given = LabelOptions(f"{name}/*.tar", Path(name) / "out", batch=64)
        begin = time.perf_counter()
        with _memory() as memory:
            found = label(classifier, given)
        took = time.perf_counter() - begin
        assert found.whole and found.errors == options.rows // 1000
        parts = sorted(given.out.glob("part-*.parquet"))
        parts[-1].unlink()
        begin = time.perf_counter()
        assert label(classifier, given).whole
        resumed = time.perf_counter() - begin
        written = [part.stat().st_mtime for part in parts[:-1]]
    tenth = max(1, len(written) // 10)
    sample = max(1, len(memory) // 10)
    values = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(), "versions": versions(), "command": "benchmarks/label/million.py BUNDLE",
        "rows": options.rows, "seconds": round(took, 1), "rows_per_s": round(options.rows / took, 1),
        "anonymous_mib": {"second tenth": max(memory[sample : 2 * sample]), "last tenth": max(memory[-sample:])},
        "seconds_a_part": {
            "second tenth": round((written[2 * tenth - 1] - written[tenth - 1]) / tenth, 3),
            "last tenth": round((written[-1] - written[-1 - tenth]) / tenth, 3),
        },
        "resumed_in_s": round(resumed, 2),
    }  # fmt: skip
    print(json.dumps(values, indent=1))
    if options.out:
        options.out.write_text(json.dumps(values, indent=1) + "\n")


@contextmanager
def _memory() -> Iterator[list[float]]:
    """The process's own memory in MiB, five times a second while the block runs."""
    found: list[float] = []
    ending = threading.Event()

    def watch() -> None:
        while not ending.wait(0.2):
            lines = Path("/proc/self/status").read_text().splitlines()
            found.append(int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024)

    watching = threading.Thread(target=watch)
    watching.start()
    yield found
    ending.set()
    watching.join()


def _write(folder: Path, rows: int) -> None:
    random = np.random.default_rng(0)
    encoded = []
    for _ in range(997):
        buffer = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(buffer, "JPEG", quality=60)
        encoded.append(buffer.getvalue())
    for tar_number in range(-(-rows // PER_TAR)):
        with tarfile.open(folder / f"shard-{tar_number:05d}.tar", "w") as tar:
            for row in range(tar_number * PER_TAR, min((tar_number + 1) * PER_TAR, rows)):
                content = b"broken" if row % 1000 == 500 else encoded[row % len(encoded)]
                entry = tarfile.TarInfo(f"{row:09d}.jpg")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    main()
