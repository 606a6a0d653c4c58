"""Training images per second, loader and step together: ours, the published script's way, and loops of timm's parts.

    .venv/bin/python benchmarks/training/rates.py [--images 512] [--rounds 5] [--size 64] [--batch 128]
        [--precision auto] [--only ours plain-resnet published timm timm-ese] [--out FILE.json]

The images are photographs of 128x96 as JPEG files, in ten classes.  In every round each loop trains one epoch of
them; the order changes from round to round.  Every loop is a process of its own, because the product's keeps freed
memory, and the others' must not profit from it.  What counts is the ratio within a round, after three epochs that do
not.

- ours: SAM-ResNet-50 through the product's own parts: images prepared once (how long that takes is stated beside),
  channels-last, fused Adam, and the precision asked for: "auto" is what the product's own probe finds here and now.
- plain-resnet: the same parts with timm's own ResNet-50 in them: no attention, one linear layer as its head.  It does
  the same arithmetic as the loop "timm".
- published: SAM-ResNet-50 as the published protocol has it: Pillow decodes and resizes in the loop, float32, default
  layout, Adam.  Two worker processes load, as many as there are cores here; --workers 0 for none.
- timm: timm's ResNet-50, its loader without augmentation, its Adam, and AMP with channels-last in our precision.
- timm-ese: the same with timm's attention of our weight, "ese": a C x C matrix upon the channel means of every block,
  as ours, with a hard sigmoid behind it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing, nullcontext, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from photographs import CLASSES, write_photographs
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Normalize, Resize, ToTensor

from samdeploy.bundle.spec import IMAGENET_MEAN, IMAGENET_STD
from samdeploy.data import open_dataset
from samdeploy.data.cache import prepare_split
from samdeploy.evaluate.machine import machine, versions
from samdeploy.models import build_model
from samdeploy.train.augment import augmentations
from samdeploy.train.choices.precision_probe import probe
from samdeploy.train.device import Autocast, Compute, multiplies_bf16
from samdeploy.train.loop.batches import StoredImages
from samdeploy.train.loop.host_memory import freed_memory_kept
from samdeploy.train.loop.step import Stepper
from samdeploy.train.recipe.load import load_recipe

RATE = 1e-4  # published
LOOPS = ("ours", "plain-resnet", "published", "timm", "timm-ese")
# What is divided by what: like with like first, then the published loop, then the lighter network.
PAIRS = (("plain-resnet", "timm"), ("ours", "timm-ese"), ("ours", "published"), ("ours", "timm"))
CPU = torch.device("cpu")
# Epochs that do not count: the first builds kernels and starts workers, and memory is new to the process (seconds of
# page faults) until the second is over.
WARMUP = 3


class Timed(NamedTuple):
    """A loop that is ready: `epoch()` trains one epoch and gives the images it saw."""

    epoch: Callable[[], int]
    parameters: int


class Apart:
    """A loop in a process of its own, which waits while the others train."""

    def __init__(self, name: str, root: Path, options: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        # Not a daemon: those may not have loader processes.
        self._process = context.Process(target=_serve, args=(theirs, name, root, options))
        self._process.start()
        theirs.close()
        self.preparing_s, self.parameters = self._pipe.recv()

    def rate(self) -> float:
        """Train an epoch: images per second."""
        self._pipe.send("epoch")
        rate: float = self._pipe.recv()
        return rate

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, name: str, root: Path, options: argparse.Namespace) -> None:
    with freed_memory_kept() if name in ("ours", "plain-resnet") else nullcontext(), suppress(EOFError):
        start = time.perf_counter()
        loop = make(name, root, options)
        pipe.send((time.perf_counter() - start, loop.parameters))
        while pipe.recv():  # until its other end is closed
            start = time.perf_counter()
            pipe.send(loop.epoch() / (time.perf_counter() - start))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--only", nargs="+", choices=LOOPS, default=list(LOOPS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if importlib.util.find_spec("timm") is None:
        print("timm and what is measured with it: left out, it is not installed: pip install timm")
        options.only = [name for name in options.only if name in ("ours", "published")]
    options.autocast = chosen_precision(options)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SAMDEPLOY_CACHE"] = str(Path(folder) / "cache")
        root = Path(folder) / "photographs"
        write_photographs(root, {"train": options.images, "val": 20, "test": 20}, 128, 96)
        with ExitStack() as stack:
            loops = {name: stack.enter_context(closing(Apart(name, root, options))) for name in options.only}
            for _ in range(WARMUP):
                for loop in loops.values():
                    loop.rate()
            rounds = [one_round(loops, number) for number in range(options.rounds)]
    report(rounds, loops, options)


def one_round(loops: dict[str, Apart], number: int) -> dict[str, float]:
    """Images per second of one epoch of each loop, begun with another loop in every round."""
    names = list(loops)
    first = number % len(names)
    row = {name: loops[name].rate() for name in names[first:] + names[:first]}
    print("  ".join(f"{name} {row[name]:.1f}" for name in names), "images/s", flush=True)
    return row


def chosen_precision(options: argparse.Namespace) -> Autocast:
    """Of all loops but the published one."""
    if options.precision != "auto":
        return torch.bfloat16 if options.precision == "bf16" else None
    if not multiplies_bf16():
        return None
    return probe(build_model("sam-resnet50", CLASSES, {"gate": "original"}), options.size, options.size).autocast


def report(rounds: list[dict[str, float]], loops: dict[str, Apart], options: argparse.Namespace) -> None:
    """Medians and ratios, and all of it as JSON."""
    found = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions() | ({"timm": version("timm")} if "timm" in "".join(loops) else {}),
        "images": options.images,
        "size": options.size,
        "batch": options.batch,
        "precision": "fp32" if options.autocast is None else "bf16",
        "preparing_s": {name: loop.preparing_s for name, loop in loops.items()},
        "parameters": {name: loop.parameters for name, loop in loops.items()},
        "rounds": rounds,
        "ratios": {},
    }
    for name, loop in loops.items():
        values = [row[name] for row in rounds]
        print(
            f"{name:12} {statistics.median(values):7.1f} images/s ({min(values):.1f} to {max(values):.1f}), "
            f"{loop.parameters / 1e6:.1f} M parameters, ready after {loop.preparing_s:.1f} s"
        )
    for one, other in PAIRS:
        if one in loops and other in loops:
            ratios = [row[one] / row[other] for row in rounds]
            found["ratios"][f"{one} / {other}"] = [min(ratios), statistics.median(ratios), max(ratios)]
            print(
                f"{one} / {other}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
                f"n = {len(rounds)} rounds"
            )
    print(f"precision of all but published: {found['precision']}")
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + "\n")


def make(name: str, root: Path, options: argparse.Namespace) -> Timed:
    """The loop of that name."""
    torch.manual_seed(0)
    if name == "ours":
        return product(build_model("sam-resnet50", CLASSES, {"gate": "original"}), root, options)
    if name == "published":
        return published(root, options)
    import timm

    blocks = {"attn_layer": "ese"} if name == "timm-ese" else {}
    network = timm.create_model("resnet50", num_classes=CLASSES, block_args=blocks)
    return product(network, root, options) if name == "plain-resnet" else timm_loop(network, root, options)


def product(model: nn.Module, root: Path, options: argparse.Namespace) -> Timed:
    """The product's own loader, augmentation (none but normalisation) and step."""
    plain = (
        "augment.flip=false",
        "augment.crop_scale=1.0",
        "augment.policy=none",
        "label_smoothing=0",
        "weight_decay=0",
    )
    size = (f"image.height={options.size}", f"image.width={options.size}")
    recipe = load_recipe("folder", [*plain, *size, "schedule=constant", "clip_norm=0"])
    split = prepare_split(open_dataset("folder", root).train, recipe.image.preprocessing(), description="train")
    model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    images = StoredImages(split.images, split.labels, CPU)
    augmentation = augmentations(recipe, CLASSES, CPU)
    stepper = Stepper(model, images, augmentation, recipe.training, Compute(CPU, options.autocast))
    number = 0

    def epoch() -> int:
        nonlocal number
        number += 1
        for step, rows in enumerate(images.batches(options.batch, torch.randperm(len(images)))):
            with stepper.kept_buffers():
                loss, _ = stepper.passes(rows, number, step)
                stepper.update(loss, RATE, step)
            loss.item()
        return len(images)

    return Timed(epoch, parameters(model))


def published(root: Path, options: argparse.Namespace) -> Timed:
    """As the published protocol describes it, without thought of speed."""
    transform = Compose([Resize((options.size, options.size)), ToTensor(), Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    loader = DataLoader(
        ImageFolder(str(root / "train"), transform), options.batch, shuffle=True, num_workers=options.workers
    )
    model = build_model("sam-resnet50", CLASSES, {"gate": "original"}).train()
    return usual_loop(model, loader, torch.optim.Adam(model.parameters(), lr=RATE), None)


def timm_loop(model: nn.Module, root: Path, options: argparse.Namespace) -> Timed:
    """timm's model, data set, loader and optimiser, put together as its documentation does."""
    from timm.data import create_dataset, create_loader
    from timm.optim import create_optimizer_v2

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
        device=CPU,
    )
    if options.autocast is not None:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = create_optimizer_v2(model, opt="adam", lr=RATE)
    return usual_loop(model.train(), loader, optimizer, options.autocast)


def usual_loop(model: nn.Module, loader: Iterable[Any], optimizer: torch.optim.Optimizer, autocast: Autocast) -> Timed:
    """The few lines that everybody writes; channels-last with autocast."""
    layout = torch.contiguous_format if autocast is None else torch.channels_last

    def epoch() -> int:
        done = 0
        for images, labels in loader:
            with nullcontext() if autocast is None else torch.autocast("cpu", autocast):
                loss = F.cross_entropy(model(images.contiguous(memory_format=layout)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            done += len(labels)
        return done

    return Timed(epoch, parameters(model))


def parameters(model: nn.Module) -> int:
    """How many weights learn."""
    return sum(weight.numel() for weight in model.parameters())


if __name__ == "__main__":
    main()
