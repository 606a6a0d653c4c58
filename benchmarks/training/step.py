"""Which step is fastest on this machine: precision, layout, fused Adam, torch.compile.

    python benchmarks/training/step.py [--arch sam-resnet50 --size 64 --batch 32 --rounds 7] [--compile] [--json FILE]

Every variant is the product's own `Stepper` on random images; ratios are to the first variant, within each round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from samdeploy.bundle.spec import Preprocessing
from samdeploy.models import build_model
from samdeploy.models.graph import Normalize
from samdeploy.train.device import Compute
from samdeploy.train.loop.batches import StoredImages
from samdeploy.train.loop.step import Stepper
from samdeploy.train.recipe.recipe import TrainingSection

VARIANTS = ("fp32 foreach Adam", "fp32", "bf16", "fp32 compiled", "bf16 compiled")


class Foreach(torch.optim.AdamW):
    """PyTorch's other implementation, which knows no `found_inf`."""

    def step(self, closure: None = None) -> None:
        self.__dict__.pop("found_inf", None)
        super().step()


def stepper(variant: str, arguments: argparse.Namespace) -> Callable[[], None]:
    """One step of `variant`."""
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(arguments.arch, 10, {"gate": "identity"}).to(device, memory_format=torch.channels_last)
    images = draw.integers(0, 256, (arguments.batch, arguments.size, arguments.size, 3), dtype=np.uint8)
    stored = StoredImages(images, draw.integers(0, 10, arguments.batch), device)
    normalize = Normalize(Preprocessing(arguments.size, arguments.size)).to(device)
    made = Stepper(
        model,
        stored,
        lambda _: lambda images, labels, _: (normalize(images), labels),
        TrainingSection(),
        Compute(device, torch.bfloat16 if "bf16" in variant else None),
    )
    if "foreach" in variant:
        made.optimizer = Foreach(model.parameters(), lr=1e-4, weight_decay=0.0, foreach=True)
    made.compile("compiled" in variant)
    rows = stored.batches(arguments.batch)[0]

    def step() -> None:
        with made.kept_buffers():
            loss, _ = made.passes(rows, 1, 0)
            made.update(loss, 1e-4, 0)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="sam-resnet50")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    names = [name for name in VARIANTS if arguments.compile or "compiled" not in name]
    steps = {name: stepper(name, arguments) for name in names}
    first = {}
    for name, step in steps.items():  # warm-up, and the compiler's time
        start = time.perf_counter()
        step()
        first[name] = time.perf_counter() - start
        step()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name, step in steps.items():
            start, used = time.perf_counter(), time.process_time()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - used)
    result = {}
    for name in names:
        ratios = [a / b for a, b in zip(seconds[names[0]], seconds[name], strict=True)]
        result[name] = {
            "images_per_s": arguments.batch / statistics.median(seconds[name]),
            "ratio": statistics.median(ratios),
            "ratio_low": min(ratios),
            "ratio_high": max(ratios),
            "cpu_s": statistics.median(cpu[name]),
            "first_step_s": first[name],
        }
        print(
            f"{name:20s} {result[name]['images_per_s']:8.1f} images/s  {result[name]['ratio']:.2f}x "
            f"({min(ratios):.2f}-{max(ratios):.2f}, n = {arguments.rounds})  {result[name]['cpu_s']:.2f} s of "
            f"processor time a step, first step {first[name]:.1f} s"
        )
    if arguments.json:
        settings = {key: value for key, value in vars(arguments).items() if key != "json"}
        found = {"torch": torch.__version__, **settings, "variants": result}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
