"""Training images per second, loader and step together: ours, the published script's way, and a loop of timm's parts.

    .venv/bin/python benchmarks/training/rates.py [--pictures 512] [--rounds 5] [--size 64] [--batch 128]
        [--only ours plain timm] [--out FILE.json]

The pictures are photographs of 128x96 as JPEG files, in ten classes.  In every round each loop trains one epoch of
them; the order changes from round to round.  What counts is the ratio within a round, after one epoch that does not.

- ours: SAM-ResNet-50 through the product's own parts: pictures prepared once (how long that takes is stated beside),
  channels-last, the precision that the product's own probe finds faster here and now, fused Adam.
- plain: SAM-ResNet-50 as the published protocol has it: Pillow decodes and resizes in the loop, float32, default
  layout, Adam.  Two worker processes load, as many as there are cores here; --workers 0 for none.
- timm: timm's ResNet-50 (which has no attention and a smaller head: 23.5 against 44 million parameters), its loader
  without augmentation, its Adam, and AMP in bf16 with channels-last where the probe found bf16 faster.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import torch
from photographs import CLASSES, write_photographs
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Normalize, Resize, ToTensor

from samdeploy.data import open_dataset
from samdeploy.data.cache import prepare_split
from samdeploy.evaluate.machine import machine, versions
from samdeploy.models import build_model
from samdeploy.spec import IMAGENET_MEAN, IMAGENET_STD
from samdeploy.train.augment import make_augmentation
from samdeploy.train.device import multiplies_bf16
from samdeploy.train.pictures import Pictures
from samdeploy.train.precision_probe import faster_precision
from samdeploy.train.recipe import load_recipe
from samdeploy.train.step import Stepper

RATE = 1e-4  # published
LOOPS = ("ours", "plain", "timm")
Epoch = Callable[[], int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=LOOPS, default=list(LOOPS))
    parser.add_argument("--out", type=Path)
    parser.set_defaults(autocast=None)
    options = parser.parse_args()
    if "timm" in options.only and importlib.util.find_spec("timm") is None:
        print("timm: left out, it is not installed: pip install timm")
        options.only.remove("timm")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SAMDEPLOY_CACHE"] = str(Path(folder) / "cache")
        root = Path(folder) / "photographs"
        write_photographs(root, {"train": options.pictures, "val": 20, "test": 20}, 128, 96)
        start = time.perf_counter()
        makers = {"ours": ours, "plain": plain, "timm": timm_loop}
        epochs = {"ours": ours(root, options)} if "ours" in options.only else {}
        preparing = time.perf_counter() - start
        epochs |= {name: makers[name](root, options) for name in options.only if name != "ours"}
        for epoch in epochs.values():  # the first epoch builds kernels and starts workers
            epoch()
        rounds = []
        for number in range(options.rounds):
            names = list(epochs)
            names = names[number % len(names) :] + names[: number % len(names)]
            row = {}
            for name in names:
                start = time.perf_counter()
                row[name] = epochs[name]() / (time.perf_counter() - start)
            rounds.append(row)
            print("  ".join(f"{name} {row[name]:.1f}" for name in epochs), "images/s", flush=True)
    report(rounds, options, preparing)


def report(rounds: list[dict[str, float]], options: argparse.Namespace, preparing: float) -> None:
    """Medians and ratios, and all of it as JSON."""
    found = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "pictures": options.pictures,
        "size": options.size,
        "batch": options.batch,
        "precision": "fp32" if options.autocast is None else "bf16",
        "preparing_s": preparing,
        "rounds": rounds,
        "ratios": {},
    }
    for name in rounds[0]:
        values = [row[name] for row in rounds]
        print(f"{name:6} {statistics.median(values):8.1f} images/s ({min(values):.1f} to {max(values):.1f})")
        if name != "ours" and "ours" in rounds[0]:
            ratios = [row["ours"] / row[name] for row in rounds]
            found["ratios"][name] = [min(ratios), statistics.median(ratios), max(ratios)]
            print(
                f"ours / {name}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
                f"n = {len(rounds)} rounds"
            )
    print(f"precision of ours and timm: {found['precision']}")
    print(f"ours prepared its {options.pictures} pictures and its network once, in {preparing:.1f} s")
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + "\n")


def ours(root: Path, options: argparse.Namespace) -> Epoch:
    """The product's own loader, augmentation (none but normalisation) and step."""
    recipe = load_recipe(
        "folder", [f"image.height={options.size}", f"image.width={options.size}", "schedule=constant", "clip_norm=0"]
    )
    split = prepare_split(open_dataset("folder", root).train, recipe.image.preprocessing(), description="train")
    torch.manual_seed(0)
    device = torch.device("cpu")
    model = build_model("sam-resnet50", CLASSES, "original").to(memory_format=torch.channels_last).train()
    pictures = Pictures(split.images, split.labels, device)
    augmentation = make_augmentation(recipe, CLASSES, device)
    options.autocast = faster_precision(model, options.size, options.size, 1_000_000) if multiplies_bf16() else None
    stepper = Stepper(model, pictures, augmentation, recipe.training, device, options.autocast)
    number = 0

    def epoch() -> int:
        nonlocal number
        number += 1
        done = 0
        for step, rows in enumerate(pictures.batches(options.batch, torch.randperm(len(pictures)))):
            with stepper.kept_buffers():
                loss, _ = stepper.passes(rows, number, step)
                stepper.update(loss, RATE, step)
            loss.item()
            done += len(rows)
        return done

    return epoch


def plain(root: Path, options: argparse.Namespace) -> Epoch:
    """As the published protocol describes it, without thought of speed."""
    torch.manual_seed(0)
    transform = Compose([Resize((options.size, options.size)), ToTensor(), Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    loader = DataLoader(
        ImageFolder(str(root / "train"), transform), options.batch, shuffle=True, num_workers=options.workers
    )
    model = build_model("sam-resnet50", CLASSES, "original").train()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)

    def epoch() -> int:
        done = 0
        for images, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            loss.item()
            done += len(labels)
        return done

    return epoch


def timm_loop(root: Path, options: argparse.Namespace) -> Epoch:
    """timm's model, data set, loader and optimiser, put together as its documentation does."""
    import timm
    from timm.data import create_dataset, create_loader
    from timm.optim import create_optimizer_v2

    torch.manual_seed(0)
    loader = create_loader(
        create_dataset("", root=str(root), split="train"),
        input_size=(3, options.size, options.size),
        batch_size=options.batch,
        is_training=True,
        no_aug=True,
        use_prefetcher=False,
        num_workers=options.workers,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        device=torch.device("cpu"),
    )
    bf16 = options.autocast is not None
    layout = torch.channels_last if bf16 else torch.contiguous_format
    model = timm.create_model("resnet50", num_classes=CLASSES).to(memory_format=layout).train()
    optimizer = create_optimizer_v2(model, opt="adam", lr=RATE)

    def epoch() -> int:
        done = 0
        for images, labels in loader:
            with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
                loss = F.cross_entropy(model(images.contiguous(memory_format=layout)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            done += len(labels)
        return done

    return epoch


if __name__ == "__main__":
    main()
