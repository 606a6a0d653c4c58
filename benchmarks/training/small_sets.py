"""A few hundred images of one's own: the `folder` recipe beside the one before it and beside timm's defaults.

    .venv/bin/python benchmarks/training/small_sets.py CIFAR10 PHOTOGRAPHS WEIGHTS [--seeds 5] [--into runs/small-sets]
        [--out FILE.json]

Three sets, drawn anew by each seed, as folders of images:
  cifar10      40 images of each class of CIFAR10, which holds train/<class>/ and test/<class>/; 2,000 to test
  fashion      30 of each class of Fashion-MNIST (Debian's package dataset-fashion-mnist); 2,000 to test
  photographs  six kinds of animals, unevenly many: half of the photographs of ImageNet's first 398 classes in
               PHOTOGRAPHS, which holds classes.txt and test/<wnid>/; the other half to test
The first two train a SAM-ResNet-18 from scratch, the third fine-tunes an EfficientNet-Lite0 from WEIGHTS (a state dict
for timm's tf_efficientnet_lite0).  All ways have the network, the size, the epochs, the batch and the first weights in
common; the same tenth of the training images chooses the epoch; the test images are looked at once by each run.
Stopped, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from PIL import Image
from scipy.stats import t
from small_sets_timm import Network, train_as_timm_does

from samdeploy.data.registry import open_dataset
from samdeploy.evaluate.machine import machine, versions
from samdeploy.runs.record import open_run

EPOCHS = 45
BATCH = 32
# Places in ImageNet's order of classes.
ANIMALS = {
    "fish": [*range(7), *range(389, 398)],
    "bird": [*range(7, 25), *range(80, 101), *range(127, 147)],
    "reptile or amphibian": [*range(25, 69)],
    "invertebrate": [*range(69, 80), *range(107, 127), *range(300, 330)],
    "dog": [*range(151, 269)],
    "other mammal": [*range(101, 107), *range(147, 151), *range(269, 300), *range(330, 389)],
}


# The recipe until version 2: nothing but an early stop.
BEFORE = {
    "augment.flip": "false",
    "augment.crop_scale": "1.0",
    "augment.policy": "none",
    "training.weight_decay": "0",
    "training.label_smoothing": "0",
    "training.ema_decay": "0",
    "training.warmup_epochs": "1",
    "training.patience": "12",
}
WAYS = ("before", "folder", "timm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar10", type=Path)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sets", nargs="+", default=["cifar10", "fashion", "photographs"])
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="of `folder`")
    parser.add_argument("--into", type=Path, default=Path("runs/small-sets"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    scratch = Network("sam-resnet18", 64, "1e-3")
    tuned = Network("timm:tf_efficientnet_lite0", 96, "3e-4", options.weights.resolve())
    networks = {"cifar10": scratch, "fashion": scratch, "photographs": tuned}
    draws = {
        "cifar10": lambda seed, to: draw_cifar10(options.cifar10, seed, to),
        "fashion": draw_fashion,
        "photographs": lambda seed, to: draw_photographs(options.photographs, seed, to),
    }
    rows: list[dict[str, object]] = []
    for seed in range(options.seeds):
        for name in options.sets:
            images = options.into / f"{name}-{seed}"
            if not images.exists():
                draws[name](seed, images)
                hold_out(images)
            for way in WAYS:
                kept = options.into / f"{name}-{seed}-{way}.json"
                if not kept.exists():
                    row = {"set": name, "seed": seed, "way": way}
                    row |= run(way, images, networks[name], seed, options.settings, options.into / "runs")
                    kept.write_text(json.dumps(row))
                rows.append(json.loads(kept.read_text()))
                print(rows[-1], flush=True)
    print()
    print("\n".join(summary(rows)))
    if options.out:
        result = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": versions(),
            "command": "benchmarks/training/small_sets.py CIFAR10 PHOTOGRAPHS WEIGHTS",
            "epochs": EPOCHS,
            "batch": BATCH,
            "networks": {name: [one.arch, one.size, one.rate] for name, one in networks.items()},
            "settings": options.settings,
            "summary": summary(rows),
            "rows": rows,
        }
        options.out.write_text(json.dumps(result, indent=2) + "\n")


def run(
    way: str, images: Path, network: Network, seed: int, settings: Sequence[str], runs: Path
) -> dict[str, float | int]:
    """Test top-1 in percent, images and seconds of one training."""
    start = time.perf_counter()
    if way == "timm":
        correct, count = train_as_timm_does(images, network, EPOCHS, BATCH, seed)
    else:
        changes = {
            "model.arch": network.arch,
            "model.pretrained": str(network.weights or "false"),
            "image.height": str(network.size),
            "image.width": str(network.size),
            "training.learning_rate": network.rate,
            "training.epochs": str(EPOCHS),
            "training.batch_size": str(BATCH),
            "training.precision": "bf16",
            "training.seed": str(seed),
            **(BEFORE if way == "before" else dict(setting.split("=", 1) for setting in settings)),
        }
        command = [sys.executable, "-m", "samdeploy", "train", "folder", "--data", str(images), "--runs", str(runs)]
        command += [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        record = open_run(Path(done.stdout.strip().splitlines()[-1]))
        assert record.test_correct is not None and record.test_images is not None
        correct, count = record.test_correct, record.test_images
    return {
        "top1": round(100 * correct / count, 2),
        "images": count,
        "seconds": round(time.perf_counter() - start),
    }


def draw_cifar10(source: Path, seed: int, to: Path) -> None:
    """40 training images of each class, and the same 200 of each to test."""
    draw = random.Random(seed)
    for folder in sorted((source / "train").iterdir()):
        _copy(draw.sample(sorted(folder.iterdir()), 40), to / "train" / folder.name)
        _copy(sorted((source / "test" / folder.name).iterdir())[:200], to / "test" / folder.name)


def draw_fashion(seed: int, to: Path) -> None:
    """30 training images of each class, and the same 200 of each to test, as PNG."""
    data = open_dataset("fashion-mnist")
    draw = np.random.default_rng(seed)
    for split, samples, count in (("train", data.train, 30), ("test", data.test, 200)):
        labels = np.asarray(samples.labels)
        for label, name in enumerate(data.classes):
            places = np.flatnonzero(labels == label)
            folder = to / split / name.replace("/", " or ")
            folder.mkdir(parents=True)
            for place in draw.permutation(places)[:count] if split == "train" else places[:count]:
                Image.fromarray(np.asarray(samples.load(int(place)))).save(folder / f"{place}.png")


def draw_photographs(source: Path, seed: int, to: Path) -> None:
    """Half of the photographs of each kind to train with, the others to test."""
    classes = [line.split()[0] for line in (source / "classes.txt").read_text().splitlines()]
    draw = random.Random(seed)
    for kind, places in ANIMALS.items():
        mixed = draw.sample(places, len(places))
        for split, chosen in (("train", mixed[: len(mixed) // 2]), ("test", mixed[len(mixed) // 2 :])):
            _copy([source / "test" / classes[place] / "0.jpg" for place in chosen], to / split / kind)


def hold_out(images: Path) -> None:
    """A tenth of the training images of each class, at least one, becomes validation."""
    for folder in sorted((images / "train").iterdir()):
        val = images / "val" / folder.name
        val.mkdir(parents=True)
        files = sorted(folder.iterdir())
        for file in files[:: min(10, len(files) - 1)]:
            file.rename(val / file.name)


def _copy(files: Sequence[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for file in files:
        shutil.copyfile(file, folder / f"{file.parent.name}-{file.name}")


def summary(rows: Sequence[dict[str, object]]) -> list[str]:
    """A line per set and way, and how far `folder` is above the others, paired by seed."""
    lines = [f"{'set':12} {'way':7} {'n':>2} {'mean %':>7} {'sd':>5}   folder is above it by (95 % interval)"]
    for name in dict.fromkeys(str(row["set"]) for row in rows):
        mine = np.array(list(_figures(rows, name, "folder")))
        for way in WAYS:
            found = np.array(list(_figures(rows, name, way)))
            lines.append(f"{name:12} {way:7} {len(found):2} {mean(found):7.2f} {_sd(found):5.2f}")
            if way != "folder":
                above = mine - found
                half = t.ppf(0.975, len(above) - 1) * _sd(above) / len(above) ** 0.5
                lines[-1] += f"   {mean(above):+.2f} ({mean(above) - half:+.2f} to {mean(above) + half:+.2f})"
    return lines


def _figures(rows: Sequence[dict[str, object]], name: str, way: str) -> Iterator[float]:
    return (float(str(row["top1"])) for row in rows if (row["set"], row["way"]) == (name, way))


def _sd(values: Sequence[float] | np.ndarray) -> float:
    return stdev(values) if len(values) > 1 else float("nan")


if __name__ == "__main__":
    main()
