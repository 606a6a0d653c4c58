"""Where the time of a training step goes: augmentation, passes, update, averaging, and what the host spends on each.

    .venv/bin/python benchmarks/training/step_parts.py [--device auto] [--arch sam-resnet50] [--size 64] [--batch 256]

The images are the digits, enlarged.  `ms` is one call with all that it queued, of twenty; `host` is how long the host
took to queue them.  Where the two are alike on a GPU, the GPU waits for the host.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from samdeploy.models import build_model
from samdeploy.train.device import Compute, autocast_dtype, device_name, training_device
from samdeploy.train.distributed import Ranks
from samdeploy.train.loop.train import _state
from samdeploy.train.prepare import open_recipe_data, prepare_data
from samdeploy.train.recipe.load import load_recipe

WARM_UP, CALLS = 5, 20
AUGMENTED = ("augment.flip=true", "augment.crop_padding=2", "augment.cutmix=1")
CASES: dict[str, tuple[str, ...]] = {
    "as they are": (),
    "augmented, averaged weights": (*AUGMENTED, "training.ema_decay=0.999"),
    "augmented, groups of 32": (*AUGMENTED, "augment.group=32"),
    "augmented, one group": (*AUGMENTED, "augment.group=256"),
    "TrivialAugment": ("augment.policy=trivial",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--arch", default="sam-resnet50")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=256)
    options = parser.parse_args()
    device = training_device(options.device)
    torch.backends.cudnn.benchmark = True
    print(f"{options.arch}, {options.size} px, batches of {options.batch}, {device_name(device)}")
    for name, changes in CASES.items():
        _case(name, changes, options, device)


def _case(name: str, changes: tuple[str, ...], options: argparse.Namespace, device: torch.device) -> None:
    recipe = load_recipe(
        "digits",
        [
            f"model.arch={options.arch}", "model.gate=identity", f"image.height={options.size}",
            f"image.width={options.size}", f"training.batch_size={options.batch}", "training.clip_norm=1", *changes,
        ],
    )  # fmt: skip
    data = prepare_data(recipe, open_recipe_data(recipe))
    model = build_model(recipe.model.arch, 10, {"gate": "identity"}).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    state, _ = _state(recipe, Compute(device, autocast_dtype("auto", device)), data, model)
    state.start_epoch(Ranks())
    stepper, rows = state.stepper, max(state.batches, key=len)
    images, targets = stepper._prepare(rows, (1, 0, 0))
    loss, hits = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)

    def passes() -> None:
        stepper.optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(stepper.logits(images), targets).backward()

    def advance() -> None:
        state.advance(loss, hits)
        state.step = 0

    def step() -> None:
        with stepper.kept_buffers():
            found, right = stepper.passes(rows, 1, 0)
        stepper.update(found, 1e-6, 0)
        state.advance(found, right)
        state.step = 0
        stepper.begin(rows, 1, 0)

    print(name)
    _time("  images", lambda: stepper._prepare(rows, (1, 0, 0)), device)
    if "group" in name or "Trivial" in name:
        return
    _time("  forward and backward", passes, device)
    _time("  update", lambda: stepper.update(loss, 1e-6, 0), device)
    _time("  averages and sums", advance, device)
    _time("  a whole step", step, device)


def _time(what: str, call: Callable[[], object], device: torch.device) -> None:
    def wait() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    for _ in range(WARM_UP):
        call()
    start = wait()
    for _ in range(CALLS):
        call()
    host = time.perf_counter() - start
    whole = wait() - start
    print(f"{what:28s} {1e3 * whole / CALLS:9.2f} ms   host {1e3 * host / CALLS:9.2f} ms", flush=True)


if __name__ == "__main__":
    main()
