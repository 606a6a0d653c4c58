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
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

from samdeploy import Classifier
from samdeploy.evaluate.machine import machine, versions
from samdeploy.label import label as module
from samdeploy.label.label import LabelOptions, label
from samdeploy.label.parts import part_path

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
        marks = _watched()
        begin = time.perf_counter()
        given = LabelOptions(f"{name}/*.tar", Path(name) / "out", batch=64)
        found = label(classifier, given)
        assert found.whole and found.errors == options.rows // 1000
        took = time.perf_counter() - begin
        tenth = max(1, len(marks) // 10)
        per_row = [(marks[at + tenth - 1][0] - marks[at][0]) / max(1, tenth - 1) for at in (tenth, len(marks) - tenth)]
        memory = [max(rss for _, rss in marks[at : at + tenth]) for at in (tenth, len(marks) - tenth)]
        part_path(given.out, len(marks) - 1).unlink()
        again = _watched()
        begin = time.perf_counter()
        assert label(classifier, given).whole
        resumed = time.perf_counter() - begin
        assert len(again) == 1
    values = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(), "versions": versions(), "command": "benchmarks/label/million.py BUNDLE",
        "rows": options.rows, "seconds": round(took, 1), "rows_per_s": round(options.rows / took, 1),
        "anonymous_mib": {"second tenth": memory[0], "last tenth": memory[1]},
        "seconds_a_part": {"second tenth": round(per_row[0], 3), "last tenth": round(per_row[1], 3)},
        "resumed_in_s": round(resumed, 2),
    }  # fmt: skip
    print(json.dumps(values, indent=1))
    if options.out:
        options.out.write_text(json.dumps(values, indent=1) + "\n")


def _watched() -> list[tuple[float, float]]:
    """After each part from now on: the clock, and the process's own memory in MiB."""
    marks: list[tuple[float, float]] = []
    write = module.write_part if not hasattr(module.write_part, "plain") else module.write_part.plain

    def watched(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        lines = Path("/proc/self/status").read_text().splitlines()
        marks.append(
            (time.perf_counter(), int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024)
        )

    watched.plain = write  # type: ignore[attr-defined]
    module.write_part = watched  # type: ignore[assignment]
    return marks


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
