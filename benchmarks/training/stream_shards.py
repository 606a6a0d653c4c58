"""Memory and time of many small images in tar shards: opening, decoding, a shuffled epoch, and the leak guard.

    .venv/bin/python benchmarks/training/stream_shards.py [--shards 100] [--images 10000] [--out FILE.json]

Each shard holds its own 8x8 JPEGs; the last two are val and test.  Every stage is a process of its own that opens the
shards anew: its own memory, `resident_mb`, is measured at each hundredth of its images, as are pages mapped from files
(code, and prepared images from the cache), `mapped_mb`; `peak_mb` is the kernel's figure of both for the whole process.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from samdeploy.bundle.spec import Preprocessing
from samdeploy.data import open_dataset
from samdeploy.data.cache import prepare_split
from samdeploy.data.dataset import Samples
from samdeploy.data.duplicates.copies import find_two_labels
from samdeploy.data.duplicates.image_hashes import write_hashes
from samdeploy.data.duplicates.leaks import find_leaks
from samdeploy.evaluate.machine import machine, versions

SIDE = 8
CLASSES = 10
BATCH = 256
SIZE = Preprocessing(SIDE, SIDE, "squeeze", None, (0.5,) * 3, (0.5,) * 3)
# Growth of the resident memory from a tenth of the images to the last one, in percent.
BAR = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--images", type=int, default=10_000, help="in each shard")
    parser.add_argument("--folder", type=Path, help="keeps the shards and the cache there, or finds them there")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        print(json.dumps(run_stage(options.stage, options.folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        write_shards(folder / "shards", options.shards, options.images)
        os.environ["SAMDEPLOY_CACHE"] = str(folder / "cache")
        stages = {stage: in_a_process(stage, folder) for stage in STAGES}
    found = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "command": "benchmarks/training/stream_shards.py",
        "images": options.shards * options.images,
        "stages": stages,
    }
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def write_shards(folder: Path, shards: int, images: int) -> None:
    """`folder`/train-*.tar, val.tar and test.tar, where they are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        name = {shards - 1: "test", shards - 2: "val"}.get(shard, f"train-{shard:04}")
        path = folder / f"{name}.tar"
        if path.exists():
            continue
        pixels = np.random.default_rng(shard).integers(0, 256, (images, SIDE, SIDE, 3), np.uint8)
        with tarfile.open(path, "w") as tar:
            for number in range(images):
                content = io.BytesIO()
                Image.fromarray(pixels[number]).save(content, "JPEG")
                for suffix, data in (("jpg", content.getvalue()), ("cls", str(number % CLASSES).encode())):
                    member = tarfile.TarInfo(f"{number:06}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def in_a_process(stage: str, folder: Path) -> dict[str, Any]:
    """What the stage printed, which is also shown."""
    command = [sys.executable, __file__, "--stage", stage, "--folder", str(folder)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    growth = f", {found['growth_percent']:+.1f} % from a tenth on" if "growth_percent" in found else ""
    times = f"{found['seconds']:8.1f} s (of the processor {found['cpu_seconds']:7.1f} s)"
    print(f"{stage:12} {times}  peak {found['peak_mb']:7.1f} MB{growth}", flush=True)
    return found


def run_stage(stage: str, folder: Path) -> dict[str, Any]:
    """Its figures; `growth_percent` where it went over the images one by one."""
    start, start_cpu = time.perf_counter(), time.process_time()
    resident = [row for row in STAGES[stage](folder / "shards") if row]
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    found = {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2), "peak_mb": memory()["peak_mb"]}
    if not resident:
        return found
    rest = [row["resident_mb"] for row in resident[len(resident) // 10 :]]
    growth = 100 * (max(rest) / rest[0] - 1)
    return found | {"growth_percent": round(growth, 2), "is_flat": growth <= BAR, "at_each_tenth": resident[9::10]}


def memory() -> dict[str, float]:
    """Of this process, in MB; `resident_mb` without pages that are mapped from files."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    kb = {line[0]: int(line[1]) for line in lines if line[0] in ("VmHWM:", "RssAnon:", "RssFile:")}
    names = {"peak_mb": "VmHWM:", "resident_mb": "RssAnon:", "mapped_mb": "RssFile:"}
    return {name: round(kb[key] / 1024, 1) for name, key in names.items()}


def opening(root: Path) -> Iterator[dict[str, float]]:
    yield {}
    open_dataset("shards", root)


def preparing(root: Path) -> Iterator[dict[str, float]]:
    """The first run: decoded, hashed and put into the cache."""
    dataset, rows = open_dataset("shards", root), list[dict[str, float]]()
    for name in ("val", "test", "train"):
        samples = dataset.split(name)
        prepare_split(measured(samples, rows) if name == "train" else samples, SIZE, description=name)
    yield from rows


def measured(samples: Samples, rows: list[dict[str, float]]) -> Samples:
    """The same samples; appends to `rows` at every hundredth."""
    step = len(samples) // 100

    def load(index: int) -> np.ndarray:
        if index and index % step == 0:
            rows.append(memory())
        return samples.load(index)

    return dataclasses.replace(samples, load=load)


def epochs(root: Path) -> Iterator[dict[str, float]]:
    """The second run: one epoch in shuffled order out of the cache, as training takes its batches."""
    import torch

    from samdeploy.train.loop.batches import StoredImages

    train = prepare_split(open_dataset("shards", root).train, SIZE, description="train")
    images = StoredImages(train.images, train.labels, torch.device("cpu"))
    batches = images.batches(BATCH, torch.randperm(len(images)))
    for number, rows in enumerate(batches):
        images.take(rows)
        if (number + 1) * 100 // len(batches) > number * 100 // len(batches):
            yield memory()


def leak_guard(root: Path) -> Iterator[dict[str, float]]:
    """Copies within and between the splits, and the hashes that a run keeps."""
    yield {}
    dataset = open_dataset("shards", root)
    hashes = {
        name: prepare_split(dataset.split(name), SIZE, description=name).hashes for name in ("train", "val", "test")
    }
    find_leaks(hashes)
    find_two_labels(hashes, dataset.classes)
    with tempfile.TemporaryDirectory() as folder:
        write_hashes(Path(folder) / "hashes.npz", hashes)


STAGES = {
    "first open": opening,
    "open": opening,
    "prepare": preparing,
    "epoch": epochs,
    "leak guard": leak_guard,
}

if __name__ == "__main__":
    main()
