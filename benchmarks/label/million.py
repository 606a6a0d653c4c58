"""A million rows: memory and time a row from the first tenth to the last, how soon a resumed labelling begins.

    python benchmarks/label/million.py BUNDLE [--rows 1000000] [--rows-a-part 5000] [--out FILE]

The images are small, made on the way and packed into tars of 10,000 (one in a thousand is broken), in a temporary
folder.  After each part a second process labels the same 500 rows, the reference: where a part and its reference become
slower together, the machine did, and not the labelling.  Then the last part, of 100 rows, is removed, and the labelling
is started again: how long that takes.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tarfile
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from samdeploy import Classifier
from samdeploy.arrays import Float64Array
from samdeploy.evaluate.machine import machine, versions
from samdeploy.label.inputs import Input
from samdeploy.label.label import Labelling, engine_facts, label, opened
from samdeploy.label.options import LabelOptions
from samdeploy.label.worker import Worker

PER_TAR = 10_000
REFERENCE = 500  # rows
_reference_worker: Worker  # in the second process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rows-a-part", type=int, default=5000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Classifier.open(options.bundle, "onnxruntime") as classifier:
        os.environ["SAMDEPLOY_CACHE"] = f"{name}/cache"
        _write(Path(name), options.rows + 100)
        given = LabelOptions(f"{name}/*.tar", Path(name) / "out", options.rows_a_part, batch=64)
        parts = _label(options, classifier, given)
        sorted(given.out.glob("part-*.parquet"))[-1].unlink()
        begin = time.perf_counter()
        assert label(classifier, given).whole
        resumed = time.perf_counter() - begin
    tenths = np.array_split(parts, 10)
    wall, cpu, reference_wall, reference_cpu, _ = np.array([tenth.mean(axis=0) for tenth in tenths]).T
    by_tenth = {
        "wall_us_a_row": 1e6 * wall / options.rows_a_part,
        "cpu_us_a_row": 1e6 * cpu / options.rows_a_part,
        "wall_over_reference": wall / reference_wall * REFERENCE / options.rows_a_part,
        "cpu_over_reference": cpu / reference_cpu * REFERENCE / options.rows_a_part,
        "peak_mib": np.array([tenth[:, 4].max() for tenth in tenths]),
    }
    values = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(), "versions": versions(), "command": "benchmarks/label/million.py BUNDLE",
        "rows": options.rows, "rows_a_part": options.rows_a_part, "seconds": round(parts[:, 0].sum(), 1),
        "rows_per_s": round(options.rows / parts[:, 0].sum(), 1),
        "by_tenth": {name: found.round(3).tolist() for name, found in by_tenth.items()},
        "last_over_first": {name: round(found[-1] / found[0], 3) for name, found in by_tenth.items()},
        "resumed_in_s": round(resumed, 2),
    }  # fmt: skip
    print(json.dumps(values, indent=1))
    if options.out:
        options.out.write_text(json.dumps(values, indent=1) + "\n")


def _label(options: argparse.Namespace, classifier: Classifier, given: LabelOptions) -> Float64Array:
    """As `label` does it, with the reference after each part.

    Returns:
        [part, 5]: wall and processor seconds of the part, of the reference, and the process's peak memory in MiB.
    """
    found = []
    beside = replace(given, out=given.out.with_name("reference"))
    beside.out.mkdir()
    with opened(given, classifier.max_bytes) as images:
        worker = Worker(classifier, given, images)
        labelling = Labelling(given, images, engine_facts(classifier))
        arguments = (options.bundle, beside, images)
        with ProcessPoolExecutor(1, get_context("spawn"), _open_reference, arguments) as second:
            second.submit(_reference).result()  # the first batches are slower
            for number in labelling.to_do:
                _peak_mib()
                begin = _clocks()
                worker.work(number, labelling.rows_of(number), labelling.settings, lambda steps, status: None)
                took, peak = _clocks() - begin, _peak_mib()
                found.append([*took, *second.submit(_reference).result(), peak])
        summary = labelling.ended()
        assert summary.whole and summary.errors == summary.rows // 1000
    return np.array(found[:-1])  # the last part has 100 rows


def _open_reference(bundle: Path, given: LabelOptions, images: Input) -> None:
    global _reference_worker
    _reference_worker = Worker(Classifier.open(bundle, "onnxruntime"), given, images)


def _reference() -> Float64Array:
    begin = _clocks()
    _reference_worker.work(0, range(REFERENCE), {}, lambda steps, status: None)
    return _clocks() - begin


def _clocks() -> Float64Array:
    """Wall and processor seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def _peak_mib() -> float:
    """Since the last call."""
    lines = Path("/proc/self/status").read_text().splitlines()
    Path("/proc/self/clear_refs").write_text("5")
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


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
