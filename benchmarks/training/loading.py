"""How fast images come, without the network: decoded and resized, and from the second run and epoch on.

    .venv/bin/python benchmarks/training/loading.py [--images 1000] [--rounds 5] [--size 192] [--out FILE.json]

The images are 1,000 JPEGs of 640x480.  Each round measures, one after the other: decoding and resizing all of them in
threads, as before the first epoch; the start of a second run, which opens the cache, checks every byte of it and passes
over all images in shuffled batches; and such an epoch alone.  What counts is the ratio within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from photographs import write_photographs

from samdeploy.bundle.spec import Preprocessing
from samdeploy.data import open_dataset
from samdeploy.data.cache import prepare_split
from samdeploy.data.stream import stream_images
from samdeploy.evaluate.machine import machine, versions
from samdeploy.train.loop.batches import StoredImages

BAR = 20.0
BATCH = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=192, help="side of the prepared images, in pixels")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SAMDEPLOY_CACHE"] = str(Path(folder) / "cache")
        root = Path(folder) / "photographs"
        write_photographs(root, {"train": options.images, "val": 20, "test": 20}, 640, 480)
        rounds = measure(root, options.size, options.rounds)
    found = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "images": options.images,
        "size": options.size,
        "rounds": rounds,
        "ratio_second_run": spread([row["second_run"] / row["decode"] for row in rounds]),
        "ratio_second_epoch": spread([row["second_epoch"] / row["decode"] for row in rounds]),
    }
    for name in ("decode", "second_run", "second_epoch"):
        values = [row[name] for row in rounds]
        print(f"{name:13} {statistics.median(values):10,.0f} images/s ({min(values):,.0f} to {max(values):,.0f})")
    for name in ("ratio_second_run", "ratio_second_epoch"):
        low, middle, high = found[name]
        print(f"{name}: {middle:.1f} ({low:.1f} to {high:.1f}), n = {len(rounds)} rounds; at least {BAR:g} wanted")
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + "\n")


def measure(root: Path, size: int, count: int) -> list[dict[str, float]]:
    """Images per second of each way, per round."""
    preprocessing = Preprocessing(size, size)
    prepare_split(open_dataset("folder", root).train, preprocessing, description="first run")
    rounds = []
    for _ in range(count):
        samples = open_dataset("folder", root).train
        start = time.perf_counter()
        for _ in stream_images(samples, preprocessing, description="decoding"):
            pass
        decode = len(samples) / (time.perf_counter() - start)
        start = time.perf_counter()
        split = prepare_split(samples, preprocessing, description="second run")
        assert split.is_cached
        images = StoredImages(split.images, split.labels, torch.device("cpu"))
        epoch(images)
        second_run = len(samples) / (time.perf_counter() - start)
        start = time.perf_counter()
        epoch(images)
        second_epoch = len(samples) / (time.perf_counter() - start)
        rounds.append({"decode": decode, "second_run": second_run, "second_epoch": second_epoch})
    return rounds


def epoch(images: StoredImages) -> None:
    """All images in shuffled batches, each a copy of its own."""
    for rows in images.batches(BATCH, torch.randperm(len(images))):
        images.take(rows)


def spread(values: list[float]) -> tuple[float, float, float]:
    """Smallest, median, largest."""
    return min(values), statistics.median(values), max(values)


if __name__ == "__main__":
    main()
