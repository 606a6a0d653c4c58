"""Latency against accuracy: ResNet-18 with several kinds of attention, trained alike, in five engines each.

    .venv/bin/python benchmarks/training/accuracy_latency.py IMAGES [--steps train measure] [--per-class 1000]
        [--epochs 5] [--rounds 31] [--into runs/accuracy-latency] [--out FILE.json]

IMAGES holds train/<class>/ and test/<class>/.  The step `train` trains each network with one seed on the first
images of each class, exports it, and runs `samdeploy eval` on all test images; stopped, it goes on with the next
network.  The step `measure` times all engines of all networks in turns, at batch 1; it needs a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from samdeploy.backends import open_session
from samdeploy.bench.turns import ratio, take_turns
from samdeploy.bundle import open_bundle
from samdeploy.certainty.rates import greatest_rate, least_rate
from samdeploy.evaluate.latency.measure import random_batches
from samdeploy.evaluate.machine import machine, versions

NONE = "none"
# timm starts its networks from other weights than samdeploy, so its kinds have a `none` of their own.
NETWORKS = {
    NONE: ("model.gate=none", "model.stem=imagenet"),
    "SAM, bounded": ("model.gate=bounded", "model.stem=imagenet"),
    "none, timm": ("model.arch=timm:resnet18",),
    **{f"{kind}, timm": ("model.arch=timm:resnet18", f"model.attention={kind}") for kind in ("se", "eca")},
}
# As for gates.py, whose JSON has the spread over seeds.
SETTINGS = (
    *("data.name=folder", "image.size=40", "augment.train_size=0", "augment.whole_epochs=0", "augment.crop_padding=5"),
    *("training.warmup_epochs=1", "training.precision=bf16"),
)
EVALUATED = ("top1", "reference_top1", "difference", "difference_low", "difference_high", "verdict")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--steps", nargs="+", choices=("train", "measure"), default=["train", "measure"])
    parser.add_argument("--per-class", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--into", type=Path, default=Path("runs/accuracy-latency"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    files = {name: options.into / f"{name}.json" for name in NETWORKS}
    if "train" in options.steps:
        images = draw(options.images, options.per_class, options.into / "images")
        for name, file in files.items():
            if not file.exists():
                found = trained(name, images, options.epochs, options.into / "runs")
                file.write_text(json.dumps(found))
            print(file.read_text(), flush=True)
    if "measure" in options.steps:
        networks = {name: json.loads(file.read_text()) for name, file in files.items()}
        measure(networks, options.rounds)
        result = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": versions(),
            "command": "benchmarks/training/accuracy_latency.py IMAGES",
            "settings": ["recipe cifar10-cpu", *SETTINGS, f"training.epochs={options.epochs}"],
            "images_per_class": options.per_class,
            "seeds": 1,
            "batch": 1,
            "rounds": options.rounds,
            "networks": {name: {key: one[key] for key in one if key != "bundle"} for name, one in networks.items()},
        }
        if options.out:
            options.out.write_text(json.dumps(result, indent=1) + "\n")


def draw(source: Path, per_class: int, to: Path) -> Path:
    """The first training images of each class, and all test images."""
    if not to.exists():
        for folder in sorted((source / "train").iterdir()):
            (to / "train" / folder.name).mkdir(parents=True)
            for file in sorted(folder.iterdir())[:per_class]:
                shutil.copyfile(file, to / "train" / folder.name / file.name)
        shutil.copytree(source / "test", to / "test")
    return to


def trained(name: str, images: Path, epochs: int, runs: Path) -> dict[str, Any]:
    """Train, export and evaluate one network."""
    start = time.perf_counter()
    settings = (*NETWORKS[name], *SETTINGS, f"training.epochs={epochs}")
    train = ["train", "cifar10-cpu", "--data", str(images), "--runs", str(runs)]
    run = Path(samdeploy(*train, *(part for each in settings for part in ("--set", each))).split()[-1])
    train_s = time.perf_counter() - start
    # The INT8 graph serves both runtimes.
    samdeploy("export", str(run), "--engine", "openvino", "--precision", "int8", "--no-cam", "--small")
    report, rows = run / "rows.json", []
    for chosen in ((), ("--backend", "openvino", "--precision", "bf16")):
        samdeploy("eval", str(run), "--consistency", "5", "--json", str(report), *chosen, fine=(0, 1))
        found = json.loads(report.read_text())
        rows += [(row, found["n_images"]) for row in found["results"] if row["ran"]]
    return {
        "bundle": str(run / "bundle"),
        "train_seconds": round(train_s),
        "seconds": round(time.perf_counter() - start),
        "threads": os.environ.get("OMP_NUM_THREADS", "one per core"),
        "test_images": rows[0][1],
        "engines": {f"{row['backend']} {row['precision']}": evaluated(row, n_images) for row, n_images in rows},
    }


def samdeploy(*arguments: str, fine: tuple[int, ...] = (0,)) -> str:
    """Output of the command; `eval` exits with 1 where an engine did not pass, which the row says."""
    done = subprocess.run([sys.executable, "-m", "samdeploy", *arguments], capture_output=True, text=True, check=False)
    if done.returncode not in fine:
        raise SystemExit(done.stderr)
    return done.stdout


def evaluated(row: dict[str, Any], n_images: int) -> dict[str, Any]:
    """What eval found of an engine, and the exact 95 % interval of its top-1, in percent."""
    correct = round(row["top1"] * n_images / 100)
    interval = [100 * bound(correct, n_images, 0.025) for bound in (least_rate, greatest_rate)]
    return {key: row[key] for key in EVALUATED} | {"top1_interval": [round(end, 2) for end in interval]}


def measure(networks: dict[str, Any], rounds: int) -> None:
    """Add to every engine its milliseconds, and what its attention costs over the network without any."""
    with ExitStack() as stack:
        runs = {}
        for name, network in networks.items():
            bundle = open_bundle(Path(network["bundle"]))
            for engine in network["engines"]:
                backend, precision = engine.split()
                session = stack.enter_context(open_session(bundle, backend, precision=precision))
                runs[f"{name}/{engine}"] = session.run
        turns = take_turns(runs, random_batches(bundle.golden()[0], 1), rounds)
    assert not turns.died, turns.died
    for name, network in networks.items():
        for engine, row in network["engines"].items():
            times = turns.times[f"{name}/{engine}"]
            row |= dict(zip(("p10_ms", "p50_ms", "p90_ms"), np.percentile(times, [10, 50, 90]).round(4), strict=True))
            cost = ratio(turns.times[f"{NONE}/{engine}"], times)
            assert cost is not None
            row["cost_percent"] = [round(100 * (value - 1), 1) for value in (cost.p10, cost.median, cost.p90)]
            print(f"{name:14} {engine:18} {row['top1']:6.2f} %  {row['p50_ms']:.3f} ms  {row['cost_percent']}")


if __name__ == "__main__":
    main()
